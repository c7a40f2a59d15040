//! Shared settings: a thousand sockets with equal settings share one copy, and an entry has its
//! number.
//!
//! Invariant: equal settings have one number, which is valid until its last holder releases it.

use std::collections::HashMap;

use slab::Slab;

use crate::id::ListenerId;
use crate::options::Settings;

#[derive(Debug, Default)]
pub(crate) struct SettingsPool {
    pool: Slab<(Settings, usize)>,
    numbers: HashMap<Settings, u32>,
    /// The last number that was returned, perhaps released since.
    latest: u32,
}

impl SettingsPool {
    #[inline]
    pub(crate) fn get(&self, number: u32) -> &Settings {
        &self.pool[number as usize].0
    }

    /// The same, if an entry holds the number.
    #[inline]
    pub(crate) fn find(&self, number: u32) -> Option<&Settings> {
        self.pool.get(number as usize).map(|(settings, _)| settings)
    }

    /// The number of these settings, held once more.
    pub(crate) fn intern(&mut self, settings: Settings) -> u32 {
        // A connection usually has the settings of the last one: comparing costs a fraction of
        // hashing.
        if self.pool.get(self.latest as usize).is_none_or(|(latest, _)| *latest != settings) {
            self.latest = self.numbers.get(&settings).copied().unwrap_or_else(|| {
                let number = self.pool.insert((settings.clone(), 0)) as u32;
                self.numbers.insert(settings, number);
                number
            });
        }
        self.hold(self.latest);
        self.latest
    }

    /// Changes the settings of one holder; all others that shared them keep theirs.
    pub(crate) fn change(&mut self, number: &mut u32, change: impl FnOnce(&mut Settings)) {
        let mut changed = self.get(*number).clone();
        change(&mut changed);
        let new = self.intern(changed);
        self.release(std::mem::replace(number, new));
    }

    #[inline]
    pub(crate) fn hold(&mut self, number: u32) -> &Settings {
        let (settings, holders) = &mut self.pool[number as usize];
        *holders += 1;
        settings
    }

    /// Releases the number once, and returns the listener of these settings.
    #[inline(always)]
    pub(crate) fn release(&mut self, number: u32) -> Option<ListenerId> {
        let (settings, holders) = &mut self.pool[number as usize];
        let listener = settings.listener;
        *holders -= 1;
        if *holders == 0 {
            self.numbers.remove(settings);
            self.pool.remove(number as usize);
        }
        listener
    }

    /// The number of different settings in use.
    pub(crate) fn len(&self) -> usize {
        self.pool.len()
    }
}
