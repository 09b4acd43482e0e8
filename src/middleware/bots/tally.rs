//! Counts bots by category and by what became of them; a counter is looked up once.

use std::sync::OnceLock;

use prometheus::{IntCounter, IntCounterVec};

use super::Sight;
use super::known::CATEGORIES;
use crate::telemetry::metrics::Metrics;

/// What became of a bot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was let in by name.
    Allowed,
    /// It was refused.
    Blocked,
    /// It passed since nobody is blocked.
    Detected,
}

/// Counters of one guard.
pub struct Tally {
    family: IntCounterVec,
    guard: String,
    cells: [[OnceLock<IntCounter>; 3]; CATEGORIES.len() + 1],
}

impl Tally {
    /// The counters of the guard of this name.
    pub fn new(metrics: &Metrics, guard: &str) -> Tally {
        Tally { family: metrics.bots().clone(), guard: guard.to_owned(), cells: Default::default() }
    }

    /// Counts one request.
    pub fn count(&self, sight: &Sight, outcome: Outcome) {
        let category = sight.categories().first();
        let cell = &self.cells[category.unwrap_or(CATEGORIES.len())][outcome as usize];
        let counter = || {
            let category = category.map_or("unknown", |index| CATEGORIES[index]);
            let action = ["allowed", "blocked", "detected"][outcome as usize];
            self.family.with_label_values(&[action, category, &self.guard])
        };
        cell.get_or_init(counter).inc();
    }
}
