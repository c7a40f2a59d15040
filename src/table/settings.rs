//! Settings, shared: a thousand sockets with the same settings hold one copy, and an entry only its number.
//!
//! Invariant: equal settings have one number; a number lives as long as somebody holds it.

use std::collections::HashMap;

use slab::Slab;

use crate::options::Settings;

#[derive(Debug, Default)]
pub(crate) struct SettingsPool {
    pool: Slab<(Settings, usize)>,
    numbers: HashMap<Settings, u32>,
    /// The number that was given last, perhaps released since.
    latest: u32,
}

impl SettingsPool {
    #[inline]
    pub(crate) fn get(&self, number: u32) -> &Settings {
        &self.pool[number as usize].0
    }

    /// The number of these settings, held once more.
    pub(crate) fn intern(&mut self, settings: Settings) -> u32 {
        // Who opens many connections gives them all the same: comparing is a fraction of hashing.
        if self.pool.get(self.latest as usize).is_some_and(|(latest, _)| *latest == settings) {
            self.hold(self.latest);
            return self.latest;
        }
        self.latest = self.find_or_insert(settings);
        self.latest
    }

    fn find_or_insert(&mut self, settings: Settings) -> u32 {
        if let Some(&number) = self.numbers.get(&settings) {
            self.hold(number);
            return number;
        }
        let number = self.pool.insert((settings.clone(), 1)) as u32;
        self.numbers.insert(settings, number);
        number
    }

    #[inline]
    pub(crate) fn hold(&mut self, number: u32) {
        self.pool[number as usize].1 += 1;
    }

    #[inline]
    pub(crate) fn release(&mut self, number: u32) {
        let (settings, holders) = &mut self.pool[number as usize];
        *holders -= 1;
        if *holders == 0 {
            self.numbers.remove(settings);
            self.pool.remove(number as usize);
        }
    }

    /// How many different settings are in use.
    pub(crate) fn len(&self) -> usize {
        self.pool.len()
    }
}
