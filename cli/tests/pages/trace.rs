//! `finale trace`: the ladder of a script.

use crate::common::run;

/// A client that half-closes, and a server that answers.
const HALF_CLOSE: &str = "client connect; client write 5 + client end; server write 100; server end";

fn json(script: &str) -> serde_json::Value {
    let outcome = run(&["trace", script, "--json"]);
    assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""), "{script}");
    serde_json::from_str(&outcome.stdout).expect("JSON")
}

/// The rows of one kind, as the side and a field.
fn rows(ladder: &serde_json::Value, kind: &str, field: &str) -> Vec<String> {
    let rows = ladder["rows"].as_array().expect("a list").iter().filter(|row| row["kind"] == kind);
    rows.map(|row| format!("{} {}", row["side"].as_str().expect("a side"), row[field].as_str().expect("text")))
        .collect()
}

fn state_of(ladder: &serde_json::Value, side: usize) -> &str {
    ladder["sides"][side]["state"].as_str().expect("a state")
}

#[test]
fn a_half_close_has_its_calls_packets_states_and_endings() {
    let ladder = json(HALF_CLOSE);
    let packets = rows(&ladder, "packet", "text");
    let without_acks: Vec<_> = packets.iter().filter(|packet| !packet.ends_with(" ACK")).map(String::as_str).collect();
    assert_eq!(
        without_acks,
        ["client SYN", "server SYN-ACK", "client 5 bytes + FIN", "server 100 bytes", "server FIN"]
    );
    let calls = rows(&ladder, "call", "name");
    let of = |side: &str| calls.iter().filter_map(|call| call.strip_prefix(side)).collect::<Vec<_>>();
    assert_eq!(of("client "), ["connect", "send", "shutdown", "recv", "recv", "close"]);
    assert_eq!(of("server "), ["accept", "recv", "recv", "send", "shutdown", "close"]);
    let kernel = rows(&ladder, "kernel", "state");
    for state in ["client SYN-SENT", "client FIN-WAIT-1", "client FIN-WAIT-2", "client TIME-WAIT", "server LAST-ACK"] {
        assert!(kernel.iter().any(|row| row == state), "{state}: {kernel:?}");
    }
    assert_eq!((state_of(&ladder, 0), state_of(&ladder, 1)), ("Closed", "Closed"));
    assert!(rows(&ladder, "ending", "text")[0].contains("client clean and acknowledged; we finished first"));
    let times: Vec<_> = ladder["rows"].as_array().expect("a list").iter().map(|row| row["at_us"].as_u64()).collect();
    assert!(times.is_sorted() && times[0] == Some(0), "{times:?}");
}

/// FINs that cross, a program that dies over unread bytes, a machine that vanishes, a wire that is
/// cut.
#[test]
fn every_way_to_end_can_be_played() {
    let ladder = json("client connect; client end + server end");
    assert!(rows(&ladder, "kernel", "state").contains(&"client CLOSING".to_owned()), "{ladder}");
    let ladder = json("client connect; server pause; client write 9; server crash");
    assert!(rows(&ladder, "packet", "text").contains(&"server RST".to_owned()), "{ladder}");
    assert!(rows(&ladder, "ending", "text")[0].contains("reset by the peer"));
    let ladder = json("client connect; server crash");
    assert!(rows(&ladder, "packet", "text").contains(&"server FIN".to_owned()), "nothing was unread: {ladder}");
    assert_eq!(state_of(&ladder, 0), "Closed", "half-closed, until its limit");
    let ladder = json("client connect; server vanish; client write 9; client end");
    assert!(rows(&ladder, "ending", "text")[0].contains("timed out"), "{ladder}");
    let ladder =
        json("client connect; network cut; client write 9; wait 500ms; network restore; client end + server end");
    let lost = ladder["rows"]
        .as_array()
        .expect("a list")
        .iter()
        .filter(|row| row["arrives_us"].is_null() && row["kind"] == "packet");
    assert!(lost.count() > 0 && rows(&ladder, "ending", "text").iter().all(|text| text.contains("clean")), "{ladder}");
    let ladder = json("client connect; server write 1048576; client pause; client destroy");
    assert!(rows(&ladder, "ending", "text").iter().any(|text| text.contains("server error: reset")), "{ladder}");
    let ladder = json("client connect; wait 1h; client discard; server end; client end");
    assert_eq!((state_of(&ladder, 0), state_of(&ladder, 1)), ("Closed", "Closed"));
}

/// A kernel acknowledges before its program reads, and a call comes before the packet that it sends.
#[test]
fn what_happens_at_one_time_is_in_its_order() {
    let ladder = json(HALF_CLOSE);
    let all = ladder["rows"].as_array().expect("a list");
    let place = |at: u64, kind: &str, word: &str| {
        let has = |row: &serde_json::Value| {
            row["at_us"] == at && row["kind"] == kind && (row["text"] == word || row["name"] == word)
        };
        all.iter().position(has).unwrap_or_else(|| panic!("{at} {kind} {word}: {ladder}"))
    };
    assert!(place(11_000, "packet", "ACK") < place(11_000, "call", "recv"), "{ladder}");
    assert!(place(20_000, "action", "write 100") < place(20_000, "call", "send"), "{ladder}");
    assert!(place(20_000, "call", "send") < place(20_000, "packet", "100 bytes"), "{ladder}");
    assert!(all.last().is_some_and(|row| row["kind"] == "ending"), "{ladder}");
}

#[test]
fn a_wait_of_a_day_takes_a_day() {
    let ladder = json("wait 24h; client connect; wait 24h; client destroy");
    let day = 24 * 60 * 60 * 1_000_000_u64;
    let at = |row: usize| (ladder["rows"][row]["line"].as_str(), ladder["rows"][row]["at_us"].as_u64());
    assert_eq!((at(0), at(1)), ((Some("> wait 1day"), Some(day)), (Some("> connect"), Some(day))));
    let last = ladder["rows"].as_array().and_then(|rows| rows.last()).expect("a row");
    assert!(last["at_us"].as_u64() > Some(2 * day), "{last}");
}

/// Does the server's kernel send this packet, in this script?
fn server_sends(script: &str, packet: &str) -> bool {
    let ladder = json(script);
    let rows = ladder["rows"].as_array().expect("a list");
    rows.iter().any(|row| row["kind"] == "packet" && row["side"] == "server" && row["text"] == packet)
}

#[test]
fn a_kernel_closes_a_descriptor_when_its_last_copy_is_closed() {
    let connected = "server set half-closed-timeout off; client connect; server fork; ";
    assert!(!server_sends(&format!("{connected} server crash; wait 1m; client destroy"), "FIN"));
    assert!(server_sends(&format!("{connected} server crash; server crash"), "FIN"));
    assert!(server_sends(&format!("{connected} server close; client write 5; server close"), "RST"), "5 are unread");
    assert!(server_sends(&format!("{connected} server end"), "FIN"), "shutdown(2) does not count copies");
    run(&["trace", "client connect; server close; server close"]).refused_with(2, "no process left");
    run(&["trace", "client connect; client fork; client destroy"]).refused_with(2, "not simulated");
}

#[test]
fn a_machine_that_was_restarted_answers_with_a_reset() {
    assert!(server_sends("client connect; server reboot; client write 5", "RST"));
    assert!(server_sends("client connect; server vanish; client write 5; server reboot", "RST"));
    run(&["trace", "client connect; server reboot; server end"]).refused_with(2, "after its program died");
}

#[test]
fn the_kernel_of_a_frozen_program_answers() {
    let ladder = json("client connect; server freeze; client write 5; wait 1s; server thaw; client end + server end");
    let kernels =
        |side: &str| ladder["moments"].as_array().expect("a list").iter().filter(|it| it["side"] == side).count();
    assert!(kernels("server") > 3 && server_sends("client connect; server freeze; client write 5", "ACK"));
    assert_eq!(ladder["sides"][1]["ending"].as_str().map(|text| text.contains("5 bytes read")), Some(true), "{ladder}");
    run(&["trace", "client connect; server freeze; server end"]).refused_with(2, "frozen");
}

#[test]
fn settings_count_from_the_beginning_and_what_is_held_goes_on_at_the_release() {
    let ladder = json("server set idle-timeout 1s; client connect; wait 2s; client destroy");
    let timer = |moment: &&serde_json::Value| moment["timer"] == "idle timeout" && moment["side"] == "server";
    let moment = ladder["moments"].as_array().and_then(|all| all.iter().find(timer)).expect("the timer was armed");
    assert_eq!(moment["timer_at_us"], 1_013_000, "from the connection at 13 ms");
    let held = json("client connect; network hold; client write 5; wait 1s; network release; client end + server end");
    let rows = held["rows"].as_array().expect("a list");
    let packet = rows.iter().find(|row| row["text"] == "5 bytes").expect("it was sent");
    assert_eq!(packet["arrives_us"], held["steps"][4]["at_us"].as_u64().expect("a time") + 1_000);
    assert!(
        server_sends("client connect; network lose client; client write 5; wait 1s; server end", "ACK"),
        "repeated"
    );
}

#[test]
fn a_packet_that_was_in_flight_at_a_cut_is_lost() {
    let arrives = |script: &str| {
        let ladder = json(script);
        let rows = ladder["rows"].as_array().expect("a list");
        let packet = rows.iter().find(|row| row["text"] == "5 bytes").expect("it was sent");
        !packet["arrives_us"].is_null()
    };
    let slow = "client connect; network delay 15ms; client write 5;";
    assert!(arrives(slow));
    assert!(arrives(&format!("{slow} wait 1s; network cut")), "it had arrived");
    assert!(!arrives(&format!("{slow} network cut")));
    assert!(!arrives(&format!("{slow} server vanish")));
    assert!(!arrives(&format!("{slow} network cut; network restore")), "the wire was cut when it came");
    let slower = "client connect; network delay 25ms; client write 5; network cut; network restore";
    assert!(arrives(slower), "the wire works again when it comes");
}

#[test]
fn a_machine_without_power_does_nothing_more() {
    let ladder = json("client connect; server write 9; client write 5 + server vanish; network restore; client end");
    let packets = |ladder: &serde_json::Value| {
        let rows = ladder["rows"].as_array().expect("a list").iter();
        let packets = rows.filter(|row| row["kind"] == "packet" && row["at_us"].as_u64() >= Some(30_000));
        packets.map(|row| (row["side"].clone(), row["arrives_us"].is_null())).collect::<Vec<_>>()
    };
    assert!(packets(&ladder).iter().all(|(side, is_lost)| side == "client" && *is_lost), "{ladder}");
    assert_eq!(ladder["sides"][1]["ending"], "its machine lost power");
    let alive = json("client connect; server write 9; network cut; server write 5; client end");
    assert!(packets(&alive).iter().any(|(side, _)| side == "server"), "one with power sends into a cut wire");
    run(&["trace", "client connect; client vanish; client write 5"]).refused_with(2, "its machine lost power");
    run(&["trace", "client vanish; client crash"]).refused_with(2, "its machine lost power");
}

/// The rows of both sides and the packets are kept from the same time on.
#[test]
fn of_a_long_run_the_newest_rows_are_kept() {
    let long = format!("client connect; {} client end", "client write 1MiB; server write 1MiB; ".repeat(99));
    let ladder = json(&long);
    let rows = ladder["rows"].as_array().expect("a list");
    assert!(rows.len() == 4_000 && ladder["lost"].as_u64() > Some(1000), "{} {}", rows.len(), ladder["lost"]);
    let (begin, end) = rows.split_at(500);
    for part in [begin, &end[end.len() - 500..]] {
        for kind in ["packet", "call", "action"] {
            assert!(part.iter().any(|row| row["kind"] == kind), "{kind}");
        }
    }
}

/// A second of probes is a thousand packets, and a day of them takes minutes to play.
#[test]
fn a_script_whose_run_does_not_end_is_refused() {
    for begin in [
        "client set keep-alive 1ms; server set keep-alive 1s; client connect",
        "server set receive-buffer 1KiB; client set send-buffer 1KiB; client connect",
    ] {
        let script = format!("{begin}{}", "; client write 1MiB; wait 24h".repeat(95));
        run(&["trace", &script]).refused_with(2, "the run does not end; shorten its waits");
    }
}

#[test]
fn the_moments_of_a_long_run_are_those_of_the_rows_that_are_kept() {
    let ladder = json(&format!("client connect{}", "; client write 1MiB + server write 1MiB".repeat(90)));
    let lost = ladder["lost"].as_u64().expect("a number");
    let old = ladder["moments"].as_array().expect("a list").iter();
    let old = old.filter(|moment| moment["rows"].as_u64().expect("a number") <= lost).count();
    assert!(lost > 1_000 && old == 2, "{lost} rows were dropped, and {old} moments of them are kept");
}

#[test]
fn the_ladder_is_printed_as_text_picture_and_page() {
    let text = run(&["trace", HALF_CLOSE, "--width", "120"]).stdout;
    for words in
        ["> connect", "------ SYN ------>", "5 bytes + FIN", "recv 0: the peer's FIN", "kernel: LAST-ACK, 1 unacked"]
    {
        assert!(text.contains(words), "{words}: {text}");
    }
    assert!(text.lines().take(60).all(|line| line.chars().count() <= 120), "{text}");
    let long = format!("{HALF_CLOSE}; {}", "wait 24h; ".repeat(20));
    for width in [60_usize, 69, 70, 100, 1000] {
        let text = run(&["trace", &long, "--width", &width.to_string()]).stdout;
        assert!(text.lines().all(|line| line.chars().count() <= width), "{width}: {text}");
    }
    let picture = run(&["trace", HALF_CLOSE, "--format", "svg"]).stdout;
    assert!(picture.starts_with("<svg ") && picture.ends_with("</svg>\n"));
    assert_eq!(picture.matches("class=\"row packet\"").count(), rows(&json(HALF_CLOSE), "packet", "text").len());
    let (_, legend) = picture.split_once("<g class=\"legend\">").expect("a legend");
    for style in ["action", "call", "error", "step", "kernel", "ending", "packet", "packet lost"] {
        assert_eq!(legend.matches(&format!("class=\"key {style}\"")).count(), 1, "{style}: {legend}");
    }
    let page = run(&["trace", HALF_CLOSE, "--format", "html"]).stdout;
    assert!(page.contains(&picture) && page.starts_with("<!doctype html>"));
    assert!(!page.contains("src=") && !page.contains("href="), "it needs nothing else");
}

#[test]
fn a_script_that_is_none_is_refused_with_the_grammar() {
    run(&["trace", "client jump"]).refused_with(2, "no such verb");
    run(&["trace", ""]).refused_with(2, "no step");
    run(&["trace", "server end"]).refused_with(2, "the server has no connection yet");
    run(&["trace", "client connect; client connect"]).refused_with(2, "connects twice");
    run(&["trace", "client connect; client crash; client write 1"]).refused_with(2, "after its program died");
    run(&["trace", HALF_CLOSE, "--width", "5"]).refused_with(2, "60 to 1000");
}

/// What the kernel says changes also while its program does nothing, or has closed the socket.
#[test]
fn the_kernel_of_a_side_that_does_nothing_is_seen_too() {
    let ladder = json("client connect; client end; wait 1m");
    let kernel = rows(&ladder, "kernel", "state");
    let waits = kernel.iter().filter(|row| *row == "server CLOSE-WAIT").count();
    assert_eq!(waits, 2, "with the FIN unread, and read: {kernel:?}");
    let text = run(&["trace", "client connect; server pause; client write 5; server crash"]).stdout;
    assert!(text.contains("kernel: ESTABLISHED, 5 unread"), "{text}");
    assert!(text.contains("over 5"), "why it is a reset: {text}");
    let ladder = json("client connect; client crash; server end");
    let kernel = rows(&ladder, "kernel", "state");
    assert_eq!(
        kernel.iter().rfind(|row| row.starts_with("client")),
        Some(&"client TIME-WAIT".to_owned()),
        "{kernel:?}"
    );
    let ladder = json("client connect; client end + server end");
    for side in ["client", "server"] {
        let kernel = rows(&ladder, "kernel", "state");
        let last = kernel.iter().rfind(|row| row.starts_with(side)).map(String::as_str);
        assert_eq!(last.and_then(|row| row.split(' ').nth(1)), Some("TIME-WAIT"), "{kernel:?}");
    }
}

#[test]
fn the_texts_of_packets_that_cross_do_not_cover_each_other() {
    let script = "client connect; network delay 20ms; wait 50ms; client write 5 + server crash";
    let picture = run(&["trace", script, "--format", "svg"]).stdout;
    let number = |text: &str, name: &str| {
        let rest = text.split_once(&format!("{name}=\"")).expect("it has one").1;
        rest.split('"').next().and_then(|number| number.parse::<i32>().ok()).expect("a number")
    };
    let packets = picture.split("row packet").skip(1);
    let texts = packets.map(|packet| packet.split_once("<text").expect("a text").1);
    let places: Vec<_> = texts.map(|text| (number(text, " x"), number(text, " y"))).collect();
    for (at, first) in places.iter().enumerate() {
        let covers = |second: &&(i32, i32)| (first.0 - second.0).abs() < 50 && (first.1 - second.1).abs() < 14;
        assert_eq!(places[at + 1..].iter().find(covers), None, "{places:?}");
    }
}

#[test]
fn the_ladder_of_a_seed_has_the_connections_of_both_sides_and_their_packets() {
    let outcome = run(&["trace", "--seed", "12", "--json"]);
    assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""));
    let ladder: serde_json::Value = serde_json::from_str(&outcome.stdout).expect("JSON");
    let calls = rows(&ladder, "call", "name");
    for call in ["client connect", "server accept", "client close", "server close"] {
        assert!(calls.iter().any(|found| found == call), "{call}: {ladder}");
    }
    let packets = rows(&ladder, "packet", "text");
    assert!(packets[0].starts_with("client ") && packets[0].ends_with(": SYN"), "{packets:?}");
    assert!(packets.iter().any(|packet| packet.starts_with("server ") && packet.ends_with(": SYN-ACK")), "{packets:?}");
    // In each form: the picture and other programs have the row's line.
    let lines = rows(&ladder, "packet", "line");
    assert!(packets.iter().zip(&lines).all(|(packet, line)| line.starts_with(packet)), "{lines:?}");
    let all = ladder["rows"].as_array().expect("a list");
    let connect = all.iter().position(|row| row["name"] == "connect").expect("a call");
    let after = &all[connect + 1];
    assert!(after["kind"] == "packet" && after["at_us"] == all[connect]["at_us"], "a call, then its packet: {ladder}");
    let connections = all.iter().filter_map(|row| row["connection"].as_u64());
    let titled = ladder["title"].as_str().expect("a title");
    assert!(connections.max() > Some(0) && titled.starts_with("seed 12: "), "{titled}");
    assert!(run(&["trace", "--seed", "12", "--fault", "syn-lost"]).code.is_some());
    run(&["trace", "--seed", "12", "--fault", "no-such"]).refused_with(2, "there is no such fault");
    run(&["trace", "client connect", "--seed", "12"]).refused_with(2, "used with");
    run(&["trace", "client connect", "--fault", "syn-lost"]).refused_with(2, "used with");
    run(&["trace"]).refused_with(2, "SCRIPT");
}

/// The lines of a side, with its packets.
fn lines(script: &str, side: &str) -> Vec<String> {
    let ladder = json(script);
    let of_side = ladder["rows"].as_array().expect("a list").iter().filter(|row| row["side"] == side);
    of_side.map(|row| row["line"].as_str().expect("text").to_owned()).collect()
}

#[track_caller]
fn has_line(script: &str, side: &str, line: &str) {
    let lines = lines(script, side);
    assert!(lines.iter().any(|one| one == line), "{script}: no {line:?} in {lines:#?}");
}

#[track_caller]
fn has_no_line(script: &str, side: &str, part: &str) {
    let lines = lines(script, side);
    assert!(!lines.iter().any(|one| one.contains(part)), "{script}: {part:?} in {lines:#?}");
}

#[test]
fn time_wait_is_seen_without_the_program_and_ends_after_a_minute() {
    let ends_at = |script: &str| {
        let ladder = json(script);
        let rows = ladder["rows"].as_array().expect("a list");
        let mut kernel = rows.iter().filter(|row| row["kind"] == "kernel" && row["side"] == "client");
        let wait = kernel.find(|row| row["state"] == "TIME-WAIT").unwrap_or_else(|| panic!("{script}: {ladder}"));
        let moments = ladder["moments"].as_array().expect("a list").iter();
        let until = moments.filter_map(|moment| moment["kernel"]["until_us"].as_u64()).max();
        let end = kernel.find(|row| row["state"] == "CLOSED").map(|row| row["at_us"].as_u64().expect("a time"));
        assert!(end.is_none() || end == until, "{script}: the page counts to {until:?}");
        end.map(|end| end - wait["at_us"].as_u64().expect("a time"))
    };
    for ending in ["client end; server end", "client close; server end", "client crash; server close"] {
        assert_eq!(ends_at(&format!("client connect; {ending}; wait 59s")), None);
        assert_eq!(ends_at(&format!("client connect; {ending}; wait 2m")), Some(60_000_000), "{ending}");
    }
    let repeated = "client connect; client end; network lose client; server end; wait 2m";
    assert_eq!(ends_at(repeated), Some(60_204_000), "from the second FIN");
    has_line("client connect; client end; server end; client reboot", "client", "kernel: CLOSED");
}

#[test]
fn a_machine_that_was_restarted_does_not_acknowledge_a_repeated_fin() {
    let script = "client connect; client end; network lose client; server end; client reboot; wait 1s";
    let mut lines = lines(script, "client");
    lines.retain(|line| line != "> wait 1s");
    assert!(lines.ends_with(&["kernel: CLOSED".to_owned(), "RST".to_owned()]), "{lines:#?}");
}

/// Linux sends an RST only if bytes are unread.
#[test]
fn the_reset_of_a_close_has_a_note_and_no_other_packet_has() {
    let over_fin = "client connect; server pause; client end; server crash";
    has_line(over_fin, "server", "FIN");
    has_no_line(over_fin, "server", "reset");
    let over_bytes = "client connect; server pause; client write 5 + client end; server crash";
    has_line(over_bytes, "server", "its kernel closes the socket over 6 unread: a reset");
    has_line(over_bytes, "server", "RST");
    has_no_line("client connect; client pause; server write 5; server destroy; client crash", "client", "a reset");
    let waiting = "server freeze; client connect; client write 5; server crash";
    has_line(waiting, "server", "its kernel resets what was not accepted");
}

#[test]
fn what_a_program_wrote_before_it_was_struck_has_reached_its_kernel() {
    for verb in ["close", "crash", "freeze", "reboot", "vanish", "fork"] {
        let script = format!("client connect; server write 5 + server {verb}; wait 1s; client destroy");
        has_line(&script, "server", "send 5 bytes");
        let arrives = if verb == "vanish" { "5 bytes (lost)" } else { "5 bytes" };
        let packets = rows(&json(&script), "packet", "line");
        assert!(packets.iter().any(|packet| *packet == format!("server {arrives}")), "{script}: {packets:?}");
    }
    has_line("client connect; server write 5 + server end + server crash", "server", "shutdown(SHUT_WR)");
}

#[test]
fn what_strikes_a_program_after_its_close_changes_nothing_of_the_ending() {
    for verb in ["crash", "reboot", "vanish"] {
        let ladder = json(&format!("client connect; client end; server end; client {verb}"));
        let ending = ladder["sides"][0]["ending"].as_str().expect("it is over");
        assert!(ending.contains("clean and acknowledged"), "{verb}: {ending}");
    }
}

#[test]
fn a_read_of_zero_is_a_fin_only_if_no_error_came_before() {
    let reset = "client connect; client pause; server write 5; server destroy; client resume";
    has_line(reset, "client", "recv 5 bytes");
    has_line(reset, "client", "recv 0: the end after the error");
    has_no_line(reset, "client", "the peer's FIN");
    has_line("client connect; client pause; server end; client resume", "client", "recv 0: the peer's FIN");
}

/// The upload is unread when the server's FIN leaves, and no FIN follows it.
#[test]
fn the_first_fin_is_known_after_an_ending_over_an_unread_upload() {
    let script = "client connect; server pause; client write 50000; server write 9 + server end + server discard; \
                  wait 1s; client end";
    let ending = json(script)["sides"][1]["ending"].as_str().expect("it is over").to_owned();
    assert!(ending.contains("we finished first, TIME_WAIT is ours"), "{ending}");
}

/// A timer of the kernel has a note, and no other cause has it.
#[test]
fn what_a_kernel_forgets_by_itself_has_a_note() {
    let fin = "its kernel forgets what no program owns (tcp_fin_timeout)";
    has_line("client connect; client close; wait 2m", "client", fin);
    has_line("client connect; client end; wait 2m; client crash; wait 2m", "client", fin);
    for other in [
        "client end; network cut; wait 10m",
        "client close; wait 50s; server destroy",
        "client end; wait 2m; server destroy",
    ] {
        has_no_line(
            &format!("client set half-closed-timeout off; client connect; {other}"),
            "client",
            "tcp_fin_timeout",
        );
    }
    let over = "a minute has passed: TIME-WAIT is over";
    has_line("client connect; client end; server end; wait 2m", "client", over);
    has_no_line("client connect; client end; server end; client reboot; wait 2m", "client", over);
}
