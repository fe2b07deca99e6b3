//! The spool: what is measured is kept within its bound, told once, and what is lost is counted.

use crate::bench::{Bench, RUNNING_1, TRYING_2, check};
use agent_core::{Effect, OpenWindow, Spool, Spooled, Waiting};
use drift::{Baseline, Summary, Window};
use protocol::{AlarmLevel, Drift, DriftAlarm, LATENCY_BUCKETS, SpoolState, StreamTelemetry, Telemetry, encode_cbor};

const MINUTE: u64 = 60_000;
/// The default of the agent, and the least that it takes.
const MIB: u64 = 1 << 20;
const LEAST: u64 = 64 << 10;

/// A measurement of the minute before `now`, with a row for each of `streams`.
fn measured(run: u64, seq: u64, now: u64, streams: Vec<StreamTelemetry>) -> Waiting {
    Waiting::Telemetry(Box::new(Telemetry {
        device: "d-01".parse().unwrap(),
        boot: run,
        run,
        seq,
        at: None,
        uptime_s: now / 1_000,
        span_s: 60,
        measured: 1,
        cpu_percent: (seq % 100) as f32,
        memory_used_mb: 100 + seq % 50,
        memory_total_mb: 512,
        agent_memory_mb: 20,
        disk_free_mb: 1_000 - seq % 50,
        temperature_c: seq.is_multiple_of(2).then_some(40.0),
        streams,
        arriving: Vec::new(),
        spool: SpoolState::default(),
    }))
}

fn telemetry(message: Waiting) -> Telemetry {
    let Waiting::Telemetry(telemetry) = message else { panic!("no telemetry") };
    *telemetry
}

/// `count` rows of seven answers and one error each.
fn rows(count: u64) -> Vec<StreamTelemetry> {
    let row = |n| {
        let mut latency = [0; LATENCY_BUCKETS];
        latency[4] = 7;
        StreamTelemetry {
            stream: format!("stream-{n}").parse().unwrap(),
            release: 1_002_000,
            answers: 7,
            errors: 1,
            latency,
            took_us: count * 100,
            memory_kb: 1_000,
        }
    };
    (0..count).map(row).collect()
}

/// What a file of it has, with its first line.
fn on_disk(spool: &Spool) -> u64 {
    encode_cbor(spool.spooled()).len() as u64 + 80
}

/// What waits, told as fast as it may be over a connection that loses nothing.
fn drain_all(spool: &mut Spool, mut now: u64) -> Vec<Waiting> {
    let mut heard = Vec::new();
    spool.connected();
    spool.saved(now, true);
    let began = now;
    while spool.state().waiting > 0 {
        let mut under_way = Vec::new();
        while let Some(message) = spool.next(now) {
            under_way.push(message);
            now += 250;
        }
        assert!((1..=4).contains(&under_way.len()), "a few at a time");
        under_way.iter().for_each(|t| spool.delivered(now, t.run(), t.seq()));
        heard.append(&mut under_way);
    }
    assert!(now - began >= 250 * (heard.len() as u64 - 1), "and at a pace");
    heard
}

fn drain(spool: &mut Spool, now: u64) -> Vec<Telemetry> {
    drain_all(spool, now).into_iter().map(telemetry).collect()
}

/// A device that is offline for 30 days and starts anew every `starts` minutes, in order.
fn thirty_days(limit: u64, streams: u64, starts: u64) -> (Spool, u64) {
    let (mut spool, mut run, mut now, mut saves) = (Spool::new(limit, Spooled::default()), 1, 0, 0);
    for minute in 1..=30 * 24 * 60 {
        now += MINUTE;
        spool.put(now, measured(run, minute, now, rows(streams)));
        assert!(spool.state().bytes <= limit, "in memory, minute {minute}");
        if minute % 100 == 0 {
            assert!(on_disk(&spool) <= limit, "on the disk, minute {minute}");
        }
        if spool.is_save_due(now) {
            spool.saved(now, true);
            saves += 1;
        }
        if minute % starts == 0 {
            spool = Spool::new(limit, spool.spooled().clone());
            (run, now) = (run + 1, 0);
        }
        let waits = spool.state();
        assert!(waits.waiting > 0 && spool.next(now).is_none(), "nothing is said offline");
    }
    assert!(saves <= 30 * 24 * 4, "{saves} writes: flash wears out");
    (spool, now)
}

#[test]
fn offline_for_thirty_days_the_spool_keeps_its_bound_and_counts_what_it_loses() {
    let never = u64::MAX;
    // Bound, streams, minutes between starts; what may be lost, and how many messages may be left.
    for (limit, streams, starts, lossy, most) in [
        (MIB, 3, never, false, 800),
        (MIB, 12, never, false, 400),
        (LEAST, 12, 24 * 60, true, 25),
        (MIB, 3, 30, true, 1_100),
    ] {
        let (mut spool, now) = thirty_days(limit, streams, starts);
        let SpoolState { waiting, merged, dropped, .. } = spool.state();
        println!("{limit} bytes, {streams} streams: {waiting} wait, {merged} merged, {dropped} dropped");
        let heard = drain(&mut spool, now);
        let told = |of: fn(&StreamTelemetry) -> u64| heard.iter().flat_map(|t| &t.streams).map(of).sum::<u64>();
        let kept: u64 = heard.iter().map(|t| t.measured).sum();
        assert_eq!(kept + dropped, 30 * 24 * 60, "every measurement is told or counted");
        assert_eq!((told(|r| r.answers), told(|r| r.errors)), (kept * streams * 7, kept * streams));
        assert_eq!(told(|r| r.latency[4]), kept * streams * 7);
        assert_eq!(heard.iter().map(|t| t.span_s).sum::<u64>(), 60 * kept);
        assert!(heard.is_sorted_by_key(|t| (t.run, t.seq)), "in order");
        assert_eq!(dropped > 0, lossy);
        assert!(heard.len() <= most && heard.len() as u64 == waiting, "{waiting} messages");
    }
}

/// The minutes of the last hour are told one by one, the hours before it as hours, with the worst of each measure.
#[test]
fn what_is_older_than_an_hour_becomes_hours() {
    let mut spool = Spool::new(MIB, Spooled::default());
    (1..=240).for_each(|n| spool.put(n * MINUTE, measured(1, n, n * MINUTE, rows(1))));
    let heard = drain(&mut spool, 240 * MINUTE);
    let spans: Vec<(u64, u64)> = heard.iter().map(|t| (t.span_s / 60, t.seq)).collect();
    let minutes = (181..=240).map(|n| (1, n));
    assert_eq!(spans, [(60, 60), (60, 120), (60, 180)].into_iter().chain(minutes).collect::<Vec<_>>());
    let hour = &heard[1];
    assert_eq!((hour.measured, hour.streams.len(), hour.streams[0].answers), (60, 1, 420));
    assert_eq!((hour.cpu_percent, hour.memory_used_mb, hour.disk_free_mb), (99.0, 149, 951));
    assert_eq!((hour.temperature_c, hour.uptime_s), (Some(40.0), 7_200));
}

/// Verdicts are in the ledger, which knows no bound of the spool.
#[test]
fn offline_for_thirty_days_no_verdict_is_lost() {
    let mut bench = check(&[RUNNING_1, TRYING_2, &[("disconnect", "")]].concat());
    let verdicts = |bench: &Bench| bench.saved.outbox.iter().map(|v| v.seq).collect::<Vec<_>>();
    let script = [
        "wait 60",
        "wait 7200",
        "assign 3 install 6",
        "stored 6",
        "examined 6",
        "restart",
        "assign 4 install 4",
        "stored 4",
        "examined 4",
        "probed 4",
        "served 4",
        "restart",
        "served 4",
        "answers 4 2 2",
        "wait 3600",
    ];
    script.iter().for_each(|event| drop(bench.happen(event)));
    let given = verdicts(&bench);
    assert_eq!(given, [2, 3, 4], "confirmed, refused, and taken back");
    for _ in 0..30 {
        bench.happen("wait 86400");
        bench.happen("restart");
        assert_eq!(verdicts(&bench), given);
    }
    let said: Vec<u64> = bench
        .happen("connect")
        .iter()
        .filter_map(|effect| match effect {
            Effect::DeliverVerdict(verdict) => Some(verdict.seq),
            _ => None,
        })
        .collect();
    assert!(given.iter().all(|seq| said.contains(seq)), "{said:?}");
}

/// A message that the broker refuses stops the others, until the next measurement.
#[test]
fn a_refusal_is_no_storm() {
    let mut spool = Spool::new(MIB, Spooled::default());
    (1..=9).for_each(|n| spool.put(n * MINUTE, measured(1, n, n * MINUTE, rows(1))));
    spool.connected();
    let first = telemetry(spool.next(9 * MINUTE).unwrap());
    assert_eq!((first.seq, first.spool.waiting), (1, 8));
    spool.refused();
    assert!(spool.next(20 * MINUTE).is_none());
    spool.put(10 * MINUTE, measured(1, 10, 10 * MINUTE, rows(1)));
    assert_eq!(spool.next(20 * MINUTE).unwrap().seq(), 1);
}

/// One world of the property below: a device, its disk, and a land that takes each message once.
struct World {
    dice: fastrand::Rng,
    spool: Spool,
    disk: Spooled,
    run: u64,
    now: u64,
    put: u64,
    /// Measurements since the disk was written: as many may be lost by a power cut.
    unsaved: u64,
    lost: u64,
    under_way: Vec<Telemetry>,
    known: Vec<(u64, u64)>,
    /// A bit for each measurement that land knows of.
    heard: [u64; LATENCY_BUCKETS],
}

const LIMIT: u64 = 14_000;
/// A measurement is one bit, of which a bucket holds 60.
const MEASUREMENTS: u64 = 60 * LATENCY_BUCKETS as u64;

impl World {
    fn new(seed: u64) -> Self {
        Self {
            dice: fastrand::Rng::with_seed(seed),
            spool: Spool::new(LIMIT, Spooled::default()),
            disk: Spooled::default(),
            run: 1,
            now: 0,
            put: 0,
            unsaved: 0,
            lost: 0,
            under_way: Vec::new(),
            known: Vec::new(),
            heard: [0; LATENCY_BUCKETS],
        }
    }

    fn measure(&mut self) {
        self.now += MINUTE;
        let mut latency = [0; LATENCY_BUCKETS];
        latency[(self.put / 60) as usize] = 1 << (self.put % 60);
        let (stream, took_us, memory_kb) = ("s".parse().unwrap(), u64::MAX, 1);
        let row = StreamTelemetry { stream, release: 1, answers: 1, errors: 0, latency, took_us, memory_kb };
        self.put += 1;
        self.unsaved += 1;
        self.spool.put(self.now, measured(self.run, self.put, self.now, vec![row]));
    }

    fn save(&mut self) {
        assert!(on_disk(&self.spool) <= LIMIT);
        self.disk = self.spool.spooled().clone();
        self.spool.saved(self.now, true);
        self.unsaved = 0;
    }

    fn begin(&mut self) {
        self.spool = Spool::new(LIMIT, self.disk.clone());
        self.under_way.clear();
        (self.run, self.now) = (self.run + 1, 0);
    }

    /// Land takes a message; the acknowledgement may be lost.
    fn hear(&mut self, message: &Telemetry) {
        let key = (message.run, message.seq);
        if self.known.contains(&key) {
            return;
        }
        self.known.push(key);
        let bits: u32 = message.streams[0].latency.iter().map(|n| n.count_ones()).sum();
        assert_eq!(u64::from(bits), message.measured, "each measurement in it is there once");
        for (heard, said) in self.heard.iter_mut().zip(message.streams[0].latency) {
            assert_eq!(*heard & said, 0, "land counts a measurement twice");
            *heard |= said;
        }
    }

    fn act(&mut self) {
        match self.dice.u8(..40) {
            0 => self.spool.connected(),
            1 | 2 => {
                self.spool.disconnected();
                self.under_way.clear();
            }
            3 if self.dice.u8(..4) == 0 => {
                self.lost += self.unsaved;
                self.unsaved = 0;
                self.begin();
            }
            4 if self.dice.u8(..4) == 0 => {
                self.save();
                self.begin();
            }
            5 => self.spool.refused(),
            6..14 => self.measure(),
            14..24 => {
                while let Some(at) = (!self.under_way.is_empty()).then(|| self.dice.usize(..self.under_way.len())) {
                    let message = self.under_way.remove(at);
                    self.hear(&message);
                    if self.dice.bool() {
                        self.spool.delivered(self.now, message.run, message.seq);
                    }
                }
            }
            _ => {
                self.now += self.dice.u64(..1_000);
                if self.spool.is_save_due(self.now) {
                    self.save();
                }
                self.under_way.extend(self.spool.next(self.now).map(telemetry));
            }
        }
        assert!(self.spool.state().bytes <= LIMIT);
    }
}

/// Whatever happens, no measurement is counted twice, and none is lost but by the bound, which counts it, or by a
/// power cut.
#[test]
fn land_hears_each_measurement_once() {
    let (mut dropped, mut lost, mut merged) = (0, 0, 0);
    for seed in 0..300 {
        let mut world = World::new(seed);
        while world.put < MEASUREMENTS {
            world.act();
        }
        world.save();
        world.spool.disconnected();
        let now = world.now;
        let rest = drain(&mut world.spool, now + MINUTE);
        rest.iter().for_each(|message| world.hear(message));
        let heard: u64 = world.heard.iter().map(|n| u64::from(n.count_ones())).sum();
        let state = world.spool.state();
        assert!(heard + state.dropped + world.lost >= world.put, "seed {seed}: {heard} heard, {state:?}");
        (dropped, lost, merged) = (dropped + state.dropped, lost + world.lost, merged + state.merged);
    }
    println!("300 worlds: {dropped} dropped, {lost} at most lost by power cuts, {merged} merged");
    assert!(dropped > 0 && lost > 0 && merged > 0);
}

fn baseline() -> Baseline {
    let values: Vec<f32> = (0..400).map(|n| n as f32).collect();
    let columns = ["a", "b", "c", "d"].map(|name| (name, values.as_slice()));
    Baseline::measure(columns).unwrap()
}

/// A window of an hour that ends at `now`, whose rows all are `value`.
fn window(run: u64, seq: u64, now: u64, value: f32, alarms: Vec<DriftAlarm>) -> Waiting {
    let mut window = Window::new(&baseline());
    (0..200).for_each(|_| window.update(&[value, value, value, value]).unwrap());
    Waiting::Drift(Box::new(Drift {
        device: "d-01".parse().unwrap(),
        boot: run,
        run,
        seq,
        at: None,
        uptime_s: now / 1_000,
        span_s: 3_600,
        stream: "pumps".parse().unwrap(),
        release: 1,
        statement: [7; 32],
        windows: 1,
        summary: window.close().encode(),
        alarms,
        unsaid: 0,
        performance: None,
    }))
}

fn alarm(feature: &str, level: AlarmLevel) -> DriftAlarm {
    let (cause, detail) = ("population".to_owned(), "the population moved".to_owned());
    DriftAlarm { feature: feature.into(), level, cause, detail, effect: 0.5, windows: 1 }
}

/// Windows are merged and not dropped: all rows are there, whatever order and grouping they came to.
#[test]
fn offline_for_a_year_no_row_of_a_window_is_lost() {
    let (mut spool, mut whole) = (Spool::new(LEAST, Spooled::default()), Summary::empty(&baseline()));
    for hour in 1..=365 * 24 {
        let alarms = if hour == 5_000 { vec![alarm("a", AlarmLevel::Page)] } else { Vec::new() };
        let drift = window(1, 2 * hour, hour * 60 * MINUTE, (hour % 400) as f32, alarms);
        let Waiting::Drift(said) = &drift else { panic!() };
        whole.merge(&Summary::decode(&said.summary).unwrap()).unwrap();
        spool.put(hour * 60 * MINUTE, drift);
        spool.put(hour * 60 * MINUTE, measured(1, 2 * hour + 1, hour * 60 * MINUTE, rows(3)));
        assert!(spool.state().bytes <= LEAST, "hour {hour}");
    }
    assert!(on_disk(&spool) <= LEAST);
    let told = drain_all(&mut spool, 365 * 24 * 60 * MINUTE);
    let windows: Vec<Drift> =
        told.into_iter().filter_map(|w| if let Waiting::Drift(d) = w { Some(*d) } else { None }).collect();
    let mut sum = Summary::empty(&baseline());
    windows.iter().for_each(|d| sum.merge(&Summary::decode(&d.summary).unwrap()).unwrap());
    assert_eq!(sum, whole);
    assert_eq!(windows.iter().map(|d| d.windows).sum::<u64>(), 365 * 24);
    assert_eq!(windows.iter().flat_map(|d| &d.alarms).count(), 1, "and the alarm is still said");
}

/// Where nothing can be merged any more, telemetry goes first, then windows, and last those with an alarm.
#[test]
fn an_alarm_is_dropped_last() {
    let mut spool = Spool::new(LEAST, Spooled::default());
    // A run is never merged with another.
    for run in 1..=200 {
        let alarms = if run == 1 { vec![alarm("a", AlarmLevel::Warn)] } else { Vec::new() };
        spool.put(MINUTE, window(run, 1, MINUTE, 5.0, alarms));
        spool.put(MINUTE, measured(run, 2, MINUTE, rows(3)));
    }
    let state = spool.state();
    let told = drain_all(&mut spool, 2 * MINUTE);
    let is_window = |w: &Waiting| matches!(w, Waiting::Drift(_));
    assert!(state.dropped > 0 && told.iter().all(is_window), "{state:?}");
    assert_eq!(told[0].run(), 1, "the oldest of all, and the only one with an alarm");
}

#[test]
fn the_loudest_alarm_of_a_feature_stays_when_windows_become_one() {
    let mut spool = Spool::new(LEAST, Spooled::default());
    let many = |level| (0..12).map(|n| alarm(&format!("{level:?}-{n}"), level)).collect::<Vec<_>>();
    let (mut first, mut second) = (many(AlarmLevel::Warn), many(AlarmLevel::Page));
    first.push(alarm("both", AlarmLevel::Page));
    second.push(alarm("both", AlarmLevel::Warn));
    spool.put(MINUTE, window(1, 1, MINUTE, 5.0, first));
    spool.put(MINUTE, window(1, 2, MINUTE, 6.0, second));
    // Room for one of them only.
    let bound = Spool::new(3_500, spool.spooled().clone());
    let mut spool = bound;
    let Waiting::Drift(one) = drain_all(&mut spool, 2 * MINUTE).remove(0) else { panic!() };
    assert_eq!((one.windows, one.span_s, one.alarms.len(), one.unsaid), (2, 7_200, 16, 9));
    let both = one.alarms.iter().find(|alarm| alarm.feature == "both").unwrap();
    assert_eq!((both.level, both.windows), (AlarmLevel::Page, 2));
    assert!(one.alarms.is_sorted_by(|a, b| a.level >= b.level));
}

/// A window of a busy model ends after its time, that of a quiet one when it has rows, or after a day of hours.
#[test]
fn a_window_waits_for_rows_but_not_for_ever() {
    let hour = 3_600_000;
    let over = |rows, hours: u64| OpenWindow { since: 7, rows }.is_over(7 + hours * hour, hour);
    assert!(!over(100_000, 0) && over(200, 1) && !over(199, 23) && over(1, 24) && !over(0, 1_000));
}
