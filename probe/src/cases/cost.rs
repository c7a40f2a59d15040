//! What each case costs a server that ends well, about, for those who want to know before they run
//! it. Measured with the zoo's correct servers.

/// By the id of the case.
const COSTS: &[(&str, &str)] =
    &[("half-close", "6 connections per run, one at a time; some seconds, and as long as three slow requests")];

/// What a case costs; empty if that was not written down.
pub(crate) fn cost(id: &str) -> &'static str {
    COSTS.iter().find(|(case, _)| *case == id).map_or("", |(_, cost)| cost)
}

#[cfg(test)]
mod tests {
    use super::cost;
    use crate::cases::all;

    #[test]
    fn each_case_has_its_cost() {
        let missing: Vec<_> = all().map(|case| case.id).filter(|id| cost(id).is_empty()).collect();
        assert!(missing.is_empty(), "cases/cost.rs has no line for {missing:?}");
    }
}
