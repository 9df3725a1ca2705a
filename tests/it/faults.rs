//! What goes wrong, one thing after another. Each lasts until it has had its effect.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::storm::{Edge, Storm};
use crate::wire::Mode;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// The replica of this edge is paused: what it asked for stays on the way.
    Pause(usize),
    /// The log of this edge answers "nothing new" for ever, or with old heartbeats.
    Lie(usize),
    /// What this edge asks about tokens gets no answer.
    Silence(usize),
    /// The authorization server ends, and starts again.
    Restart,
}

impl Storm {
    /// Everything that can go wrong, `times` over, in any order.
    fn faults(&self, times: usize) -> Vec<Fault> {
        let mut faults = Vec::new();
        for (number, edge) in self.edges.iter().enumerate() {
            faults.extend([Fault::Pause(number), Fault::Silence(number), Fault::Restart]);
            faults.extend(edge.is_remote().then_some(Fault::Lie(number)));
        }
        let mut faults = faults.repeat(times);
        for last in (1..faults.len()).rev() {
            faults.swap(last, self.dice.below(last + 1));
        }
        faults
    }

    /// Lets all of it go wrong in the time in which so many tokens are revoked.
    pub(crate) async fn go_wrong(&self, times: usize) -> BTreeMap<Fault, usize> {
        let (mut happened, start) = (BTreeMap::new(), self.tape.visits());
        let faults = self.faults(times);
        let apart = self.scale.revocations * self.scale.pace / (faults.len() + 1);
        for (number, fault) in faults.into_iter().enumerate() {
            self.tape.until(start + (number + 1) * apart).await;
            match fault {
                Fault::Pause(edge) => self.pause(&self.edges[edge]).await,
                Fault::Lie(edge) => self.lie(&self.edges[edge]).await,
                Fault::Silence(edge) => self.silence(&self.edges[edge]).await,
                Fault::Restart => self.restart().await,
            }
            *happened.entry(fault).or_default() += 1;
        }
        happened
    }

    async fn pause(&self, edge: &Edge) {
        let before = edge.wires.log.held();
        edge.pause(true);
        self.until_stale(edge).await;
        self.tape.until_true(|| !edge.is_remote() || edge.wires.log.held() > before).await;
        edge.pause(false);
    }

    async fn lie(&self, edge: &Edge) {
        let before = edge.wires.log.lies();
        // One that would be newer than what the replica has read is what no log may hand out.
        edge.wires.log.set(Mode::Lie(self.start));
        self.until_stale(edge).await;
        self.tape.until_true(|| edge.wires.log.lies() >= before + 3).await;
        edge.wires.log.set(Mode::Pass);
    }

    /// Waits until tokens were revoked of which the replica does not know; that was longer ago than
    /// the edge may take; and much was asked of it after that.
    async fn until_stale(&self, edge: &Edge) {
        let unknown = (self.tape.acknowledged() + 20).min(self.scale.revocations);
        self.tape.until_true(|| self.tape.acknowledged() >= unknown).await;
        let since = self.tape.now();
        self.tape.until_true(|| self.tape.now() > since + edge.place.bound).await;
        let visits = self.tape.visits_at(edge.place) + 150;
        self.tape.until_true(|| self.tape.visits_at(edge.place) >= visits).await;
    }

    async fn silence(&self, edge: &Edge) {
        let (held, outages) = (edge.wires.questions.held(), self.tape.answered(edge.place, 503));
        edge.wires.questions.set(Mode::Hold);
        self.tape.until_true(|| edge.wires.questions.held() >= held + 3).await;
        self.tape.until_true(|| self.tape.answered(edge.place, 503) >= outages + 3).await;
        edge.wires.questions.set(Mode::Pass);
    }

    async fn restart(&self) {
        let outages = || {
            let places = self.edges.iter().map(|edge| edge.place);
            places.map(|place| self.tape.answered(place, 503)).sum::<usize>()
        };
        let (before, visits) = (outages(), self.tape.visits());
        self.authority.kill();
        self.tape.until(visits + 300).await;
        self.tape.until_true(|| outages() >= before + 20).await;
        self.authority.restart().await;
    }

    /// Cuts the connections of one wire or another, again and again.
    pub(crate) async fn cut_wires(self: Arc<Self>) {
        const APART: usize = 200;
        let mut next = self.tape.visits();
        loop {
            next += APART;
            self.tape.until(next).await;
            let wires = &self.dice.pick(&self.edges).wires;
            if self.dice.percent(50) { wires.log.cut() } else { wires.questions.cut() }
        }
    }
}
