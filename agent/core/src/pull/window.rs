//! The chunks that one bundle lacks: which are asked for next, which are on their way, and which are late.

use super::Flow;
use crate::step::Millis;
use protocol::MAX_NEEDED_CHUNKS;
use std::collections::{BTreeMap, VecDeque};
use trust::Digest;

/// The longest patience that only doubling leads to.
const LONGEST_PATIENCE: Millis = 60_000;

/// Waiting for something that was asked for.
#[derive(Debug, Clone, Copy)]
pub struct Wait {
    /// When it was asked for first.
    since: Millis,
    /// When it was asked for last.
    last: Millis,
    patience: Millis,
    /// How often it was late.
    late: u32,
    /// Land was asked for it.
    needed: bool,
}

impl Wait {
    /// Asked for at `now`; `what` it is gives it a moment of its own.
    pub fn from(now: Millis, flow: &Flow, what: Digest) -> Self {
        Self { since: now, last: now, patience: flow.patience(what), late: 0, needed: false }
    }

    /// Whether it should have arrived by `now`, and whether land should hear of it; then the next wait is longer.
    /// The broker is asked twice before land is, unless it is known to keep nothing.
    pub fn is_over(&mut self, now: Millis, flow: &Flow, what: Digest) -> Option<bool> {
        // The link may have turned out to be slower than it seemed when this was asked for.
        let patience = if flow.is_live() { self.patience } else { self.patience.max(flow.patience(what)) };
        if now < self.last + patience {
            return None;
        }
        self.last = now;
        self.late += 1;
        self.patience = (patience * 2).min(LONGEST_PATIENCE.max(flow.patience(what)));
        self.needed = flow.is_live() || self.late > 1;
        Some(self.needed)
    }

    /// When it was asked for first.
    pub fn since(&self) -> Millis {
        self.since
    }

    /// Whether land was asked for it.
    pub fn is_needed(&self) -> bool {
        self.needed
    }
}

/// What should have arrived.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Late {
    /// To be asked of the broker once more.
    pub again: Vec<Digest>,
    /// Those of them that land should send, as many as one message can name.
    pub needed: Vec<Digest>,
}

/// The chunks that one bundle lacks.
#[derive(Debug, Default)]
pub struct Window {
    queue: VecDeque<Digest>,
    asked: BTreeMap<Digest, Wait>,
}

impl Window {
    /// It lacks `chunk`, and wants it after all that it wanted before.
    pub fn want(&mut self, chunk: Digest) {
        self.queue.push_back(chunk);
    }

    /// Only those that `lacking` names are still wanted.
    pub fn retain(&mut self, lacking: impl Fn(&Digest) -> bool) {
        self.queue.retain(&lacking);
        self.asked.retain(|chunk, _| lacking(chunk));
    }

    /// The chunks to ask for now, so that `size` are on their way: several at a time where that keeps the link busy.
    pub fn ask(&mut self, now: Millis, flow: &mut Flow, size: usize) -> Vec<Digest> {
        let room = size.saturating_sub(self.asked.len()).min(self.queue.len());
        if room < size / 4 && room < self.queue.len() {
            return Vec::new();
        }
        let room = flow.leave(now, room);
        let next: Vec<Digest> = self.queue.drain(..room).collect();
        self.asked.extend(next.iter().map(|chunk| (*chunk, Wait::from(now, flow, *chunk))));
        next
    }

    /// The connection is another one: nothing is on its way.
    pub fn reconnected(&mut self) {
        for chunk in std::mem::take(&mut self.asked).into_keys() {
            self.queue.push_front(chunk);
        }
    }

    /// A chunk is here.
    pub fn arrived(&mut self, chunk: Digest) {
        self.asked.remove(&chunk);
    }

    /// The broker did not take the subscription: if it was asked for, it is wanted still, and not on its way.
    pub fn turned_down(&mut self, chunk: Digest) {
        if self.asked.remove(&chunk).is_some() {
            self.queue.push_front(chunk);
        }
    }

    /// The wait for `chunk`, if it was asked for and has not arrived.
    pub fn awaits(&self, chunk: Digest) -> Option<Wait> {
        self.asked.get(&chunk).copied()
    }

    /// What was asked for and has not arrived.
    pub fn asked(&self) -> Vec<Digest> {
        self.asked.keys().copied().collect()
    }

    /// Chunks that should have arrived.
    pub fn late(&mut self, now: Millis, flow: &Flow) -> Late {
        let mut late = Late::default();
        for (chunk, wait) in &mut self.asked {
            if late.needed.len() == MAX_NEEDED_CHUNKS {
                break;
            }
            if let Some(needed) = wait.is_over(now, flow, *chunk) {
                late.again.push(*chunk);
                late.needed.extend(needed.then_some(*chunk));
            }
        }
        late
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunks(count: u8) -> Vec<Digest> {
        (0..count).map(|n| Digest::of(&[n])).collect()
    }

    fn window(count: u8) -> Window {
        let mut window = Window::default();
        chunks(count).into_iter().for_each(|chunk| window.want(chunk));
        window
    }

    #[test]
    fn the_broker_is_asked_twice_before_land_is() {
        let (mut flow, mut window) = (Flow::new(4, None, "a"), window(1));
        let chunk = window.ask(0, &mut flow, 4)[0];
        let mut told = Vec::new();
        for now in (0..200_000).step_by(1_000) {
            let late = window.late(now, &flow);
            if !late.again.is_empty() {
                assert_eq!(late.again, [chunk]);
                told.push((now / 1_000, late.needed.len()));
            }
        }
        let needed: Vec<usize> = told.iter().map(|(_, needed)| *needed).collect();
        assert_eq!(needed, [0, 1, 1, 1, 1, 1], "{told:?}");
        assert!((3..=6).contains(&told[0].0), "{told:?}");
    }

    #[test]
    fn where_the_broker_keeps_nothing_land_is_asked_at_once() {
        let (mut flow, mut window) = (Flow::new(4, None, "a"), window(1));
        flow.reconnected(false);
        let chunk = window.ask(0, &mut flow, 4)[0];
        assert_eq!(window.late(199, &flow), Late::default());
        assert_eq!(window.late(400, &flow), Late { again: vec![chunk], needed: vec![chunk] });
        assert_eq!(window.late(500, &flow), Late::default(), "the next wait is longer");
    }

    #[test]
    fn a_new_connection_is_asked_for_what_was_on_its_way_too() {
        let (mut flow, mut window) = (Flow::new(8, None, "a"), window(6));
        let first = window.ask(0, &mut flow, 4);
        assert_eq!(first, chunks(6)[..4]);
        assert_eq!(window.awaits(first[1]).map(|wait| wait.since()), Some(0));
        window.arrived(first[1]);
        flow.reconnected(true);
        window.reconnected();
        assert_eq!(window.ask(10, &mut flow, 2).len(), 2);
        let mut again = window.asked();
        again.extend(window.ask(10, &mut flow, 8));
        again.sort();
        let mut left: Vec<Digest> = chunks(6).into_iter().filter(|chunk| *chunk != first[1]).collect();
        left.sort();
        assert_eq!(again, left);
    }

    #[test]
    fn what_the_broker_turned_down_is_asked_for_when_there_is_room() {
        let (mut flow, mut window) = (Flow::new(8, None, "a"), window(3));
        let all = window.ask(0, &mut flow, 3);
        window.turned_down(all[2]);
        window.turned_down(all[2]);
        flow.turned_down(window.asked().len());
        assert!(window.ask(1, &mut flow, 2).is_empty());
        window.arrived(all[0]);
        assert_eq!(window.ask(2, &mut flow, 2), [all[2]]);
    }
}
