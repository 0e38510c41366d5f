//! Who holds a connection, and since when.

use std::panic::Location;
use std::time::{Duration, Instant};

/// Who holds a connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Holder {
    pub place: &'static Location<'static>,
    pub since: Instant,
    warned: bool,
}

/// All of them. A place is given out again, so that nothing is allocated or hashed for a lease.
#[derive(Debug, Default)]
pub(super) struct Holders {
    places: Vec<Option<Holder>>,
    free: Vec<usize>,
}

impl Holders {
    /// Adds one; what is returned removes it.
    pub fn add(&mut self, place: &'static Location<'static>, since: Instant) -> usize {
        let holder = Some(Holder { place, since, warned: false });
        match self.free.pop() {
            Some(free) => {
                self.places[free] = holder;
                free
            }
            None => {
                self.places.push(holder);
                self.places.len() - 1
            }
        }
    }

    /// Since when the one that goes has held its connection.
    pub fn remove(&mut self, holder: usize) -> Option<Instant> {
        self.free.push(holder);
        self.places[holder].take().map(|holder| holder.since)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Holder> {
        self.places.iter().flatten()
    }

    pub fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Those who have held theirs for longer than `limit`, each told once.
    pub fn slow(&mut self, limit: Duration) -> Vec<Holder> {
        let mut slow = Vec::new();
        for holder in self.places.iter_mut().flatten() {
            if !holder.warned && holder.since.elapsed() > limit {
                holder.warned = true;
                slow.push(*holder);
            }
        }
        slow
    }
}
