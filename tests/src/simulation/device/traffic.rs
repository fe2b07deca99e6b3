//! What a modelled device is asked: pieces of work that are answered or not, and what land is told of them.

use super::super::broker::{Payload, Topic};
use super::super::check::Violation;
use super::super::scenario::{Flaw, MINUTE, SECOND};
use super::super::world::World;
use super::Job;
use agent_core::Event;
use bridge_core::{Figures, Measured};
use protocol::StreamName;
use std::rc::Rc;
use trust::Digest;

/// Requests in a piece of a world that is measured, and of a thousand those that fail.
const REQUESTS: u64 = 60;
const USUAL: u64 = 10;
const FADED: u64 = 30;

impl World {
    /// Requests came, and were answered or not.
    pub(super) fn answer(
        &mut self,
        device: usize,
        stream: StreamName,
        bundle: Digest,
        left: u8,
    ) -> Result<(), Violation> {
        let process = self.devices[device].process.as_ref();
        let serves = process.and_then(|p| p.serving.get(&stream)).is_some_and(|(main, _)| *main == bundle);
        if !serves {
            return Ok(());
        }
        let (answers, errors) = if self.scenario.measured {
            let rate = if self.scenario.fails(device, bundle, Flaw::Fades) { FADED } else { USUAL };
            let errors = (0..REQUESTS).filter(|_| self.rng.u64(..1_000) < rate).count() as u64;
            (REQUESTS - errors, errors)
        } else if self.scenario.fails(device, bundle, Flaw::Errors) {
            (1, 10)
        } else {
            (self.rng.u64(1..12), 0)
        };
        if left > 0 {
            let stream = stream.clone();
            let pause = if self.scenario.measured { MINUTE..MINUTE + SECOND } else { 2 * SECOND..20 * SECOND };
            self.hand_on(device, pause, Job::Traffic { stream, bundle, left: left - 1 });
        }
        if self.scenario.measured {
            let figures = Figures { answers, errors, took_us: answers * 100, ..Figures::default() };
            let (id, release) = (self.scenario.names[device].clone(), self.library.bundles[&bundle].release);
            let measured = Measured { device: id, stream: stream.clone(), release, figures };
            self.say(device, Topic::Telemetry(device), Payload::Telemetry(Rc::new(measured)), None);
        }
        let observed = Event::Observed { stream, bundle, answers, errors, took_us: answers * 100, resident: 0 };
        self.tell_device(device, observed)
    }
}
