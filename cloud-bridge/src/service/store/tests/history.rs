//! One random history in two databases: every answer is the same, and so is all that they hold at the end.
//!
//! The time and chance of both are drawn alike. Without a PostgreSQL server the second is SQLite as well.

use super::super::commands::Answered;
use super::super::drift::WhichWindows;
use super::super::notices::Wants;
use super::super::{Outside, audit, copy};
use super::place::Place;
use super::{device, telemetry, window};
use crate::service::store::once::Once;
use crate::service::store::{Store, Words};
use bridge_core::access::{Access, Role};
use bridge_core::audit::Deed;
use bridge_core::notice::Notice;
use bridge_core::{
    Asked, CommandDraft, Credential, Device, FanOut, Figures, Heard, Member, Numbers, Phase, Place as At, Policy,
    Record, Release, Rollout, SampleRequest, Sealed, Status, StoredDocument, Targets, Withdrawn,
};
use fastrand::Rng;
use protocol::{
    Chosen, CommandOutcome, CommandResult, DeviceId, Diagnostics, DocumentKind, Drift, JoinToken, Profile, Sample,
    SampledInput, StreamName, Telemetry,
};
use sqlx::{AssertSqlSafe, Row};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt::Write;
use trust::{Digest, Request};

const OPERATIONS: u64 = 10_000;
const DAY: u64 = 24 * 3_600_000;
/// The most seconds that one operation lies behind another, and rarely days.
const STEP_MS: u64 = 90_000;

thread_local! {
    static NOW: Cell<u64> = const { Cell::new(1_800_000_000_000) };
    static CHANCE: RefCell<Rng> = const { RefCell::new(Rng::with_seed(0)) };
}

const OUTSIDE: Outside = Outside {
    now: || NOW.get(),
    chance: |bytes| {
        CHANCE.with_borrow_mut(|dice| bytes.iter_mut().for_each(|byte| *byte = dice.u8(..)));
        Ok(())
    },
};

/// Who uses a store, and what they were given by it.
struct Hand {
    store: Store,
    joins: Vec<(DeviceId, JoinToken)>,
    tokens: Vec<String>,
}

async fn hand(place: &Place) -> Hand {
    let wants = ["all", "some"].map(|hook| Wants {
        hook: hook.into(),
        kinds: if hook == "all" { Vec::new() } else { vec!["petrel.drift".into()] },
    });
    let store = Store { outside: OUTSIDE, ..place.open().await }.telling(wants.into());
    Hand { store, joins: Vec::new(), tokens: Vec::new() }
}

#[tokio::test]
async fn both_databases_give_the_same_answers_on_the_same_history() {
    let seed: u64 = std::env::var("PETREL_SEED").map_or(46, |seed| seed.parse().unwrap());
    let places = [Place::sqlite(), Place::postgres().await.unwrap_or_else(Place::sqlite)];
    let mut hands = [hand(&places[0]).await, hand(&places[1]).await];
    let (mut dice, mut asked) = (Rng::with_seed(seed), BTreeMap::<String, u64>::new());
    for n in 0..OPERATIONS {
        let days = if dice.u32(..200) == 0 { dice.u64(1..40) } else { 0 };
        NOW.set(NOW.get() + dice.u64(..STEP_MS) + days * DAY);
        let act = dice.u64(..);
        let mut answers = Vec::new();
        for hand in &mut hands {
            CHANCE.set(Rng::with_seed(act));
            answers.push(hand.act(&mut Rng::with_seed(act)).await);
        }
        assert_eq!(answers[0], answers[1], "operation {n} with PETREL_SEED={seed}");
        *asked.entry(answers[0].split(' ').next().unwrap().to_owned()).or_default() += 1;
    }
    assert!(asked.len() == usize::from(KINDS) + 1 && asked.values().all(|times| *times > 20), "{asked:?}");
    for hand in &hands {
        hand.store.close().await;
    }
    let [one, other] = [content(&places[0]).await, content(&places[1]).await];
    assert!(one.lines().count() > 2_000, "{} lines", one.lines().count());
    assert_eq!(one, other, "all that they hold");

    // The way from one to the other, and back.
    if let Some(third) = Place::postgres().await {
        let taken = tempfile::tempdir().unwrap();
        copy::take(&places[0].database, taken.path()).await.unwrap();
        copy::Vacant::find(&third.database).await.unwrap().fill(taken.path()).await.unwrap();
        assert_eq!(content(&third).await, one, "all of it, in another");
        let full = copy::Vacant::find(&third.database).await.err().unwrap();
        assert!(full.to_string().contains("holds something already"), "{full}");
    }
}

/// All that a database holds, in the order of its keys, and the numbers that it gives next.
async fn content(place: &Place) -> String {
    let taken = tempfile::tempdir().unwrap();
    copy::take(&place.database, taken.path()).await.unwrap();
    let pool = super::super::database::Database::File(taken.path().to_owned()).look().await.unwrap();
    let mut connection = pool.acquire().await.unwrap();
    let mut all = String::new();
    for table in copy::tables(&mut connection).await.unwrap() {
        let columns: Vec<_> = table.columns.iter().map(|column| format!("quote({})", column.name)).collect();
        let row = columns.join(" || ' ' || ");
        let rows = format!("SELECT {row} AS row FROM {} ORDER BY 1", table.name);
        for row in sqlx::query(AssertSqlSafe(rows)).fetch_all(&mut *connection).await.unwrap() {
            writeln!(all, "{}: {}", table.name, row.get::<&str, _>("row")).unwrap();
        }
    }
    let given = sqlx::query("SELECT name || ' ' || seq AS given FROM sqlite_sequence ORDER BY 1");
    for row in given.fetch_all(&mut *connection).await.unwrap() {
        writeln!(all, "given: {}", row.get::<&str, _>("given")).unwrap();
    }
    all
}

fn name(dice: &mut Rng) -> DeviceId {
    device(dice.choice(["a", "a-1", "a.b", "a_", "b", "edge-10", "edge-9", "z"]).unwrap())
}

fn stream(dice: &mut Rng) -> StreamName {
    dice.choice(["s", "s-2", "s.1"]).unwrap().parse().unwrap()
}

fn word(dice: &mut Rng) -> String {
    // As texts are, but for the last one.
    dice.choice(["ann", "Bob", "zoë", "ß", "日本", "a b", "O'Neill", "", "%_\\", "nul\0l"]).unwrap().to_owned()
}

fn some<T>(dice: &mut Rng, most: usize, mut one: impl FnMut(&mut Rng) -> T) -> Vec<T> {
    (0..dice.usize(..=most)).map(|_| one(dice)).collect()
}

fn deed(dice: &mut Rng) -> Deed {
    let action = dice.choice(["device.approve", "rollout.start", "rollout.stop", "rollouts", "webhook.test"]).unwrap();
    Deed::new(&word(dice), action, &word(dice), "done")
}

fn said(dice: &mut Rng) -> Telemetry {
    // Of few numbers, so that many are said again, and of some that are too large for those with a sign.
    let run = dice.choice([1, 7, u64::MAX]).unwrap();
    Telemetry { device: name(dice), ..telemetry(run, dice.u64(..400), 60) }
}

fn ended(dice: &mut Rng) -> Drift {
    let at = NOW.get() + 3_600_000 - dice.u64(..3 * DAY);
    let feature = word(dice);
    let mut drift = Drift { device: name(dice), stream: stream(dice), ..window(dice.u64(..600), at, &feature) };
    if dice.bool() {
        drift.alarms.clear();
    }
    drift
}

fn answered(dice: &mut Rng) -> Answered {
    let (device, seq) = (name(dice), dice.u64(1..90));
    let done = CommandResult::done("sea".parse().unwrap(), device, format!("nonce {}", seq / 10), seq);
    let log = some(dice, 3, word);
    let diagnostics = dice.bool().then(|| Diagnostics { log, ..Diagnostics::default() });
    let sample = |dice: &mut Rng| Sample {
        at: NOW.get(),
        release: 1,
        id: Some(word(dice)),
        chosen: Chosen::Drawn,
        input: SampledInput::Image("AAAA".into()),
        answer: Vec::new(),
    };
    let samples = (dice.u8(..3) == 0).then(|| (dice.u64(1..20), some(dice, 3, sample)));
    Answered { result: CommandResult { diagnostics, detail: Some(word(dice)), ..done }, samples }
}

fn phase(dice: &mut Rng) -> Phase {
    let (wave, reason) = (dice.usize(..2), word(dice));
    match dice.u8(..6) {
        0 => Phase::Draft,
        1 => Phase::Approval { wave },
        2 => Phase::Rolling { wave },
        3 => Phase::Soaking { wave, since: NOW.get() },
        4 => Phase::Stopped { wave, reason },
        _ => Phase::Completed,
    }
}

/// What the core may want to be kept, of every kind.
fn record(dice: &mut Rng) -> Record {
    let (now, serial) = (NOW.get(), format!("{:02x}", dice.u8(..40)));
    let bundle = Digest::of(&[dice.u8(..30)]);
    match dice.u8(..19) {
        0 => {
            let credential = Credential { key: vec![1, 2], serial, certificate: bundle, until: now };
            let profile = Profile {
                board: "b".into(),
                arch: "x".into(),
                cores: 1,
                ram_mb: 1,
                models_mb: 1,
                metered: false,
                agent: word(dice),
            };
            Record::Device(Box::new(Device {
                id: name(dice),
                credential,
                next: None,
                status: dice.choice([Status::Pending, Status::Approved, Status::Revoked]).unwrap(),
                profile,
                labels: some(dice, 3, |dice| (word(dice), word(dice))).into_iter().collect(),
                online: dice.bool(),
                last_seen: now,
                left: None,
                heard: Heard::default(),
                greeted: None,
                commands: 3,
                generation: dice.u64(..),
                forgotten: None,
                sealed: Sealed::default(),
                alarm: None,
                desired: Default::default(),
                report: None,
                lately: Default::default(),
            }))
        }
        1 => Record::NoDevice { id: name(dice) },
        2 => {
            let (stream, version) = (stream(dice), word(dice));
            let (release, total_size) = (dice.u64(..99), dice.u64(..));
            Record::Release(Box::new(Release { stream, version, release, bundle, total_size, ram_mb: 0, pushed: now }))
        }
        3 => Record::NoRelease { bundle },
        4 => Record::Rollout(Box::new(Rollout {
            id: dice.u64(..20),
            stream: stream(dice),
            version: word(dice),
            release: 1,
            bundle,
            ram_mb: 0,
            to: Targets::All,
            policy: Policy::default(),
            by: word(dice),
            approved: BTreeMap::from([(0, word(dice))]),
            phase: phase(dice),
            waived: None,
            wave_started: now,
            started: now,
            ended: None,
            allowance: (0.5, now),
            retries: 0,
            judgement: None,
            members: BTreeMap::new(),
        })),
        5 => Record::Member(Box::new(Member {
            rollout: dice.u64(..20),
            device: name(dice),
            wave: 0,
            place: At::Assigned,
            before: Some(bundle),
            assigned: Some(now),
            there: true,
            tries: 0,
            result: None,
            day: Figures::default(),
            old: Figures::default(),
            new: Figures { answers: dice.u64(..), ..Figures::default() },
        })),
        6 => Record::NoMember { rollout: dice.u64(..20), device: name(dice) },
        7 => Record::Samples(Box::new(SampleRequest {
            id: dice.u64(..20),
            stream: stream(dice),
            devices: some(dice, 4, |dice| (name(dice), Asked::Refused(word(dice)))).into_iter().collect(),
            count: 3,
            bytes: 4,
            reason: word(dice),
            by: word(dice),
            made: now,
            until: now,
            approved: Some(word(dice)),
            ended: None,
        })),
        8 => Record::NoSamples { request: dice.u64(..20) },
        9 => Record::Deed(Box::new(deed(dice))),
        10 => {
            let (device, seq) = (name(dice), dice.u64(1..90));
            Record::Command(Box::new(CommandDraft {
                device,
                seq,
                issued: now - dice.u64(..DAY),
                deadline: now,
                nonce: format!("nonce {}", seq / 10),
                heard: now,
                numbers: Numbers::default(),
                request: Request::Diagnostics {},
                fan_out: dice.bool().then(|| dice.u64(1..5)),
            }))
        }
        11 => {
            let document =
                dice.choice([DocumentKind::Root, DocumentKind::Revocation, DocumentKind::Breakglass]).unwrap();
            let (number, text) = (dice.u64(1..12), word(dice));
            Record::Document(Box::new(StoredDocument { document, number, sha256: bundle, text }))
        }
        12 => Record::Beacons { reserved: dice.u64(..) },
        13 => Record::PutBack { at: now },
        16 => Record::FanOut(Box::new(FanOut {
            id: dice.u64(..20),
            to: "site=north".parse().unwrap(),
            request: Request::Report {},
            by: word(dice),
            at: now,
            deadline: now,
            given: dice.u64(..9),
            left_out: 0,
        })),
        17 => Record::NoFanOut { fan_out: dice.u64(..20) },
        14 => Record::NoRollout { rollout: dice.u64(..20) },
        15 => Record::Withdrawn(Withdrawn { device: name(dice), serial, until: now, since: 1 }),
        _ => Record::NotWithdrawn { serial },
    }
}

/// Kinds of operations.
const KINDS: u8 = 34;

impl Hand {
    /// Does one thing, which dice choose; its name and what came of it.
    async fn act(&mut self, dice: &mut Rng) -> String {
        let store = &self.store;
        let limit = dice.u32(1..40);
        let hook = dice.choice(["all", "some", "gone"]).unwrap();
        // A save is the most usual thing.
        match dice.u8(..KINDS + 8).saturating_sub(8) {
            0 => {
                let telemetry = if dice.u8(..9) == 0 { some(dice, 300, said) } else { some(dice, 9, said) };
                let key = Once { who: word(dice), key: format!("{}", dice.u16(..)), asked: Digest::of(b"asked") };
                let new = store.once(&key.who, &key.key).await.unwrap().is_none();
                let once = some(dice, 1, |dice| (key.clone(), dice.u64(..99))).into_iter().filter(|_| new).collect();
                let words = Words { telemetry, windows: some(dice, 3, ended), answers: some(dice, 3, answered), once };
                let records = if dice.u8(..9) == 0 { some(dice, 200, record) } else { some(dice, 9, record) };
                format!("save {:?}", store.save(&records, &words).await)
            }
            1 => {
                let asked = some(dice, 300, said);
                format!("are_new {:?}", store.are_new(&asked).await)
            }
            2 => format!("telemetry {:?}", store.telemetry(&name(dice), limit).await),
            3 => format!("records {:?}", store.records().await),
            4 => format!("room_for {:?}", store.room_for(&ended(dice)).await),
            5 => {
                let since = NOW.get() - dice.u64(..9 * DAY);
                let device = dice.bool().then(|| name(dice));
                let which = WhichWindows { stream: stream(dice), since, until: since + dice.u64(..9 * DAY), device };
                format!("windows {:?}", store.windows(&which).await)
            }
            6 => {
                let stream = dice.bool().then(|| stream(dice));
                format!("concerns {:?}", store.concerns(stream.as_ref(), dice.bool()).await)
            }
            7 => {
                let known = store.concerns(None, true).await.unwrap();
                let id = dice.choice(&known).map_or(99_999, |(id, _)| *id);
                format!("acknowledge {id} {:?}", store.acknowledge(id, &word(dice)).await)
            }
            8 => format!("reply {:?}", store.replies(&[&answered(dice).result]).await),
            9 => format!("commands {:?}", store.commands(&name(dice), limit).await),
            10 => format!("command {:?}", store.command(&name(dice), dice.u64(1..90)).await),
            11 => format!("samples {:?}", store.samples(dice.u64(1..20)).await),
            12 => format!("witness {:?}", store.witness(&deed(dice)).await),
            13 => format!("audit_head {:?}", store.audit_head().await),
            14 => {
                let after = dice.bool().then(|| dice.u64(..2_000));
                let since = dice.bool().then(|| NOW.get() - dice.u64(..30 * DAY));
                let who = dice.bool().then(|| word(dice));
                let action = dice.bool().then(|| (dice.choice(["rollout", "device.approve", "none"]).unwrap()).into());
                format!("audit {:?}", store.audit(&audit::Which { after, limit, since, who, action }).await)
            }
            15 => {
                let (device, ttl) = (name(dice), dice.u64(..3 * DAY));
                let (token, kept) = store.new_join_token(&device, ttl, dice.bool()).await.unwrap();
                let told = format!("new_join_token {} {kept:?}", token.as_str());
                self.joins.push((device, token));
                told
            }
            16 => {
                let Some((device, token)) = dice.choice(&self.joins) else { return "use_join_token".into() };
                let device = if dice.u8(..5) == 0 { name(dice) } else { device.clone() };
                let used = store.use_join_token(token, &device, &Digest::of(&[dice.u8(..2)])).await;
                format!("use_join_token {used:?}")
            }
            17 => {
                let Some((device, token)) = dice.choice(&self.joins) else { return "look_at_join_token".into() };
                format!("look_at_join_token {:?}", store.look_at_join_token(token, device, None).await)
            }
            18 => {
                let Some((_, token)) = dice.choice(&self.joins) else { return "give_back_join_token".into() };
                format!("give_back_join_token {:?}", store.give_back_join_token(token).await)
            }
            19 => format!("join_tokens {:?}", store.join_tokens().await),
            20 => {
                let known = store.join_tokens().await.unwrap();
                let id = dice.choice(&known).map_or_else(|| word(dice), |kept| kept.id.clone());
                format!("revoke_join_token {:?}", store.revoke_join_token(&id).await)
            }
            21 => {
                let role = dice.choice([Role::Admin, Role::Viewer, Role::Operator]).unwrap();
                let until = dice.bool().then(|| NOW.get() + DAY);
                let access =
                    Access { role, streams: some(dice, 2, stream).into_iter().collect(), since: NOW.get(), until };
                let made = store.let_in(&word(dice), &access, &deed(dice)).await.unwrap();
                let told = format!("let_in {made:?}");
                self.tokens.extend(made);
                told
            }
            22 => format!("people {:?}", store.people().await),
            23 => {
                let token = dice.choice(&self.tokens).cloned().unwrap_or_default();
                format!("holder {:?}", store.holder(&token).await)
            }
            24 => format!("shut_out {:?}", store.shut_out(&word(dice), &deed(dice)).await),
            25 => format!("try_hook {:?}", store.try_hook(hook, &Notice::of_test(&word(dice))).await),
            26 => {
                let (due, next) = (store.notices_due(hook, limit).await, store.next_notice(hook).await);
                format!("notices_due {due:?} {next:?}")
            }
            27 => format!("box_of {:?} {:?}", store.box_of(hook).await, store.notices(hook, limit).await),
            28 => {
                let due = store.notices_due(hook, 9).await.unwrap();
                let id = dice.choice(&due).map_or(0, |waiting| waiting.id);
                if dice.bool() {
                    return format!("told_or_not {:?}", store.told(id).await);
                }
                let due = dice.bool().then(|| NOW.get() + dice.u64(..DAY));
                format!("told_or_not {:?}", store.untold(id, due, &word(dice)).await)
            }
            29 => format!("tell_again {:?}", store.tell_again(hook).await),
            30 => format!("keep_boxes {:?}", store.keep_boxes(["all", "some"].into_iter()).await),
            31 => {
                let known = format!("{}", dice.u16(..));
                format!("once {:?} {:?}", store.once(&word(dice), &known).await, store.audit_base().await)
            }
            32 => {
                let fan_out = dice.u64(1..6);
                let outcome = dice.choice([None, Some(None), Some(Some(CommandOutcome::Done))]).unwrap();
                let after = dice.bool().then(|| name(dice));
                let some = store.commands_of(fan_out, outcome, after.as_ref(), limit).await;
                format!("fan_out {:?} {some:?}", store.answers(fan_out).await)
            }
            // It takes a rest when something went, so it is rare; but by then much is old.
            _ if dice.u8(..3) > 0 => format!("is_writable {:?}", store.is_writable().await),
            _ => {
                let oldest = NOW.get() - dice.u64(DAY..20 * DAY);
                let gone = match dice.u8(..6) {
                    0 => store.roll_up(oldest).await,
                    1 => store.forget_hours(oldest).await,
                    2 => store.forget_drift(oldest).await,
                    3 => store.forget_answers(oldest).await,
                    4 => store.forget_keys(oldest).await,
                    _ => store.trim_audit(oldest).await,
                };
                // The bytes of one are not those of the other.
                let size = store.size().await.map(|size| (size.telemetry_since, size.hours_since, size.audit_lines));
                format!("forget {gone:?} {size:?}")
            }
        }
    }
}
