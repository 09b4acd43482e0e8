//! A second backend for a request whose first one is slow.

use std::sync::Arc;
use std::time::Duration;

use super::{Leads, Mode, Pick, Tried, Upstream};
use crate::upstream::budget::{Budget, Grant};
use crate::upstream::guard::Guard;
use crate::upstream::matching::Facts;

/// When another backend is asked as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hedge {
    /// So long after the last one was asked, when none has answered.
    pub after: Duration,
    /// How often for one request.
    pub most: u32,
    /// For how many of the requests.
    pub grant: Grant,
}

/// The same with what was used of it.
pub(in crate::upstream) struct Hedges {
    pub hedge: Hedge,
    pub budget: Arc<Budget>,
}

/// Why no other backend is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoHedge {
    /// There is none that is well and may take the request.
    Nowhere,
    /// The route's budget has none left.
    OverBudget,
}

impl Upstream {
    /// When a request goes to another backend as well; `None` for never.
    pub fn hedge(&self) -> Option<Hedge> {
        self.hedge.as_ref().map(|hedges| hedges.hedge)
    }

    /// Another backend for a request that all of `asked` have and none has answered; takes it from the budget.
    ///
    /// It is one that has nothing against it: up and not there for want of better ones only, with its full share, a closed
    /// breaker and a free place. A request that its cookie or an exclusive canary keeps at one backend stays there.
    ///
    /// # Errors
    /// [`NoHedge`] when there is none.
    pub fn hedged(&self, facts: &dyn Facts, asked: &Tried) -> Result<Pick, NoHedge> {
        let Some(hedges) = &self.hedge else { return Err(NoHedge::OverBudget) };
        let pick = self.other(facts, asked).ok_or(NoHedge::Nowhere)?;
        if hedges.budget.retry(hedges.hedge.grant) { Ok(pick) } else { Err(NoHedge::OverBudget) }
    }

    fn other(&self, facts: &dyn Facts, asked: &Tried) -> Option<Pick> {
        let available = self.available();
        let kept = matches!(self.leads(facts), Some((_, Leads::Cookie)));
        let taken = self.mode == Mode::Canary && self.exclusive(facts, |_| true).is_some();
        if available.panic || kept || taken {
            return None;
        }
        let mut refused: Vec<usize> = Vec::new();
        loop {
            let well = |index: usize| {
                let backend = &self.backends[index];
                available.usable[index] && backend.is_direct() && backend.pace() >= 100 && backend.is_closed()
            };
            let may = |index: usize| asked.times(index) == 0 && !refused.contains(&index) && well(index);
            let index = self.choose(facts, self.turn(asked), may)?;
            let backend = &self.backends[index];
            match Guard::leave(backend.guard.as_ref(), backend.shared.as_ref()) {
                Ok(leave) => return Some(Pick::new(backend.clone(), index, leave)),
                Err(_) => refused.push(index),
            }
        }
    }
}
