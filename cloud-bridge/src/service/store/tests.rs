//! Tokens, each used once, and telemetry, each taken once.

mod history;
mod place;

use super::*;
pub(super) use place::{Place, everywhere};
use protocol::{JoinToken, SpoolState};

pub(super) fn device(name: &str) -> DeviceId {
    name.parse().unwrap()
}

fn measured(telemetry: Vec<Telemetry>) -> Words {
    Words { telemetry, ..Words::default() }
}

/// T68: a token that was used, has expired, or is for somebody else.
#[tokio::test]
async fn a_token_lets_one_key_of_one_device_in_while_it_lasts() {
    everywhere(async |place| {
        let store = place.open().await;
        let (one, two) = (Digest::of(b"one"), Digest::of(b"two"));
        let (token, kept) = store.new_join_token(&device("a"), 60_000, true).await.unwrap();
        assert!(!kept.used && kept.device == "a" && kept.pending);

        let unknown = JoinToken::new(&[0; 32]);
        assert_eq!(store.use_join_token(&unknown, &device("a"), &one).await.unwrap(), Err(NoEntry::Unknown));
        assert_eq!(store.use_join_token(&token, &device("b"), &one).await.unwrap(), Err(NoEntry::OtherDevice));
        let invitation = store.look_at_join_token(&token, &device("a"), None).await.unwrap().unwrap();
        assert!(invitation.pending && (1..=unix_millis()).contains(&invitation.made));
        assert!(store.use_join_token(&token, &device("a"), &one).await.unwrap().is_ok());
        assert_eq!(store.use_join_token(&token, &device("a"), &two).await.unwrap(), Err(NoEntry::Used));
        // Its answer may have been lost.
        assert!(store.use_join_token(&token, &device("a"), &one).await.unwrap().is_ok());
        assert!(store.join_tokens().await.unwrap()[0].used);
        store.give_back_join_token(&token).await.unwrap();
        assert!(store.use_join_token(&token, &device("a"), &two).await.unwrap().is_ok());

        let (late, _) = store.new_join_token(&device("a"), 0, false).await.unwrap();
        assert_eq!(store.use_join_token(&late, &device("a"), &one).await.unwrap(), Err(NoEntry::Expired));
        assert!(!store.join_tokens().await.unwrap().iter().any(|kept| kept.until <= unix_millis() && kept.used));
    })
    .await;
}

#[tokio::test]
async fn a_token_that_was_taken_back_lets_nobody_in() {
    everywhere(async |place| {
        let store = place.open().await;
        let (token, kept) = store.new_join_token(&device("a"), 60_000, false).await.unwrap();
        let (other, _) = store.new_join_token(&device("b"), 60_000, false).await.unwrap();
        assert!(!store.revoke_join_token("").await.unwrap() && !store.revoke_join_token("%").await.unwrap());
        assert!(store.revoke_join_token(&kept.id).await.unwrap());
        assert!(!store.revoke_join_token(&kept.id).await.unwrap());
        assert_eq!(store.look_at_join_token(&token, &device("a"), None).await.unwrap(), Err(NoEntry::Unknown));
        assert!(!store.look_at_join_token(&other, &device("b"), None).await.unwrap().unwrap().pending);
    })
    .await;
}

#[tokio::test]
async fn the_database_holds_no_secret() {
    everywhere(async |place| {
        let store = place.open().await;
        let (token, _) = store.new_join_token(&device("a"), 60_000, false).await.unwrap();
        store.close().await;
        let taken = tempfile::tempdir().unwrap();
        copy::take(&place.database, taken.path()).await.unwrap();
        let secret = token.as_str().trim_start_matches("petrel_join_").as_bytes();
        for entry in std::fs::read_dir(taken.path()).unwrap() {
            let bytes = std::fs::read(entry.unwrap().path()).unwrap();
            assert!(!bytes.windows(secret.len()).any(|part| part == secret));
        }
    })
    .await;
}

pub(super) fn telemetry(run: u64, seq: u64, span_s: u64) -> Telemetry {
    Telemetry {
        device: device("a"),
        boot: 1,
        run,
        seq,
        at: None,
        uptime_s: 60 * seq,
        span_s,
        measured: span_s / 60,
        cpu_percent: 1.0,
        memory_used_mb: 1,
        memory_total_mb: 1,
        agent_memory_mb: 1,
        disk_free_mb: 1,
        temperature_c: None,
        streams: Vec::new(),
        arriving: Vec::new(),
        spool: SpoolState::default(),
    }
}

/// A bridge may die between its store and its word to the broker, and a device that lost its disk counts from one again.
#[tokio::test]
async fn telemetry_is_taken_once_also_after_a_restart_and_from_a_device_that_forgot() {
    everywhere(async |place| {
        for new in [[true, true, false, true], [false; 4]] {
            let store = place.open().await;
            let said = [(u64::MAX, 60, 3_600), (u64::MAX, 61, 60), (u64::MAX, 60, 3_600), (7, 60, 60)];
            let said = said.map(|(run, seq, span)| telemetry(run, seq, span));
            assert_eq!(store.are_new(&said).await.unwrap(), new);
            store.save(&[], &measured(said.to_vec())).await.unwrap();
            let taken = store.telemetry(&device("a"), 10).await.unwrap();
            let mut taken: Vec<_> =
                taken.iter().map(|t| (t.telemetry.run, t.telemetry.seq, t.telemetry.span_s)).collect();
            taken.sort_unstable();
            assert_eq!(taken, [(7, 60, 60), (u64::MAX, 60, 3_600), (u64::MAX, 61, 60)]);
            store.close().await;
        }
    })
    .await;
}

#[test]
fn rows_go_in_portions_of_few_lengths() {
    for (count, lengths) in [(0, vec![]), (1, vec![1]), (7, vec![4, 2, 1]), (300, vec![128, 128, 32, 8, 4])] {
        let all: Vec<u32> = (0..count).collect();
        let of = |dialect| portions(&all, dialect, |_| 8);
        for dialect in [Dialect::Sqlite, Dialect::Postgres] {
            assert_eq!(of(dialect).map(<[u32]>::len).collect::<Vec<_>>(), lengths, "{dialect:?}");
            assert_eq!(of(dialect).flatten().copied().collect::<Vec<_>>(), all);
        }
    }
    // In one record of TLS each, where that can be.
    let sizes = [2_000; 20].into_iter().chain([40_000, 100]).collect::<Vec<usize>>();
    let some: Vec<&[usize]> = portions(&sizes, Dialect::Postgres, |bytes| *bytes).collect();
    assert_eq!(some.iter().map(|some| some.len()).collect::<Vec<_>>(), [4, 4, 4, 4, 4, 1, 1]);
    assert_eq!(portions(&sizes, Dialect::Sqlite, |bytes| *bytes).next().map(<[usize]>::len), Some(16));
}

#[tokio::test]
async fn a_great_many_messages_are_known_by_themselves() {
    everywhere(async |place| {
        let store = place.open().await;
        let some: Vec<Telemetry> = (0..300).map(|seq| telemetry(1, seq * 2, 60)).collect();
        store.save(&[], &measured(some)).await.unwrap();
        let all: Vec<Telemetry> = (0..600).map(|seq| telemetry(1, seq, 60)).collect();
        let new: Vec<bool> = (0..600).map(|seq| seq % 2 == 1).collect();
        assert_eq!(store.are_new(&all).await.unwrap(), new);
        let another = Telemetry { device: device("b"), ..telemetry(1, 0, 60) };
        assert_eq!(store.are_new(&[another]).await.unwrap(), [true], "of another device");
    })
    .await;
}

#[tokio::test]
async fn of_a_row_that_changes_several_times_the_last_is_kept() {
    everywhere(async |place| {
        let store = place.open().await;
        let is = |serial: &str, until| {
            let device = device("a");
            Record::Withdrawn(bridge_core::Withdrawn { serial: serial.into(), device, since: 1, until })
        };
        let gone = |serial: &str| Record::NotWithdrawn { serial: serial.into() };
        let records =
            [is("one", 1), is("two", 1), is("one", 2), gone("two"), is("three", 1), gone("three"), is("three", 3)];
        store.save(&records, &Words::default()).await.unwrap();
        assert_eq!(store.records().await.unwrap(), [is("one", 2), is("three", 3)]);
        let many: Vec<Record> = (0..300).map(|n| is(&format!("{n:03}"), n)).collect();
        store.save(&[&many[..], &[gone("one"), gone("three")]].concat(), &Words::default()).await.unwrap();
        assert_eq!(store.records().await.unwrap(), many);
    })
    .await;
}

/// A window of one device with one alarm, of the feature `feature`.
fn window(seq: u64, at: u64, feature: &str) -> Drift {
    let alarm = protocol::DriftAlarm {
        feature: feature.into(),
        level: protocol::AlarmLevel::Warn,
        cause: "stuck".into(),
        detail: "stuck".into(),
        effect: 0.5,
        windows: 1,
    };
    let Telemetry { device, boot, run, uptime_s, span_s, .. } = telemetry(1, seq, 3_600);
    let (stream, at) = ("s".parse().unwrap(), Some(at));
    let (statement, summary, alarms) = ([1; 32], Vec::new(), vec![alarm]);
    Drift {
        device,
        boot,
        run,
        seq,
        at,
        uptime_s,
        span_s,
        stream,
        release: 1,
        statement,
        windows: 1,
        summary,
        alarms,
        unsaid: 0,
        performance: None,
    }
}

async fn hear(store: &Store, window: Drift) -> drift::Room {
    let room = store.room_for(&window).await.unwrap();
    // What the driver would not keep is not counted twice even if it did.
    store.save(&[], &Words { windows: vec![window], ..Words::default() }).await.unwrap();
    room
}

/// Said again after a crash of either side, a window is not counted twice, and neither is its alarm.
#[tokio::test]
async fn a_window_is_taken_once_and_its_alarm_is_one() {
    everywhere(async |place| {
        let now = unix_millis();
        for start in 0..2 {
            let store = place.open().await;
            // The second by a clock that is a year ahead.
            let windows = [(1, now - 7_200_000, "a"), (2, now + 31_536_000_000, "a"), (3, now - 1_000, "b")];
            for (round, (seq, at, feature)) in windows.into_iter().chain(windows).enumerate() {
                let new = if start == 0 && round < windows.len() { drift::Room::New } else { drift::Room::Known };
                assert_eq!(hear(&store, window(seq, at, feature)).await, new, "{start} {round}");
            }
            let all = |device: Option<DeviceId>| drift::WhichWindows {
                stream: "s".parse().unwrap(),
                since: 0,
                until: u64::MAX,
                device,
            };
            let ended: Vec<u64> = store.windows(&all(None)).await.unwrap().iter().map(|w| w.ended).collect();
            assert!(ended.len() == 3 && ended.is_sorted() && *ended.last().unwrap() <= unix_millis(), "{ended:?}");
            assert_eq!(store.windows(&all(Some(device("b")))).await.unwrap(), []);
            let concerns = store.concerns(None, false).await.unwrap();
            let told: Vec<_> = concerns.iter().map(|(_, c)| (c.feature.as_str(), c.windows)).collect();
            assert!(told.len() == 2 && told.contains(&("a", 2)) && told.contains(&("b", 1)), "{told:?}");
            let id = concerns[0].0;
            let first = store.acknowledge(id, "ann").await.unwrap().unwrap().acknowledged;
            assert_eq!(store.acknowledge(id, "bob").await.unwrap().unwrap().acknowledged, first, "who saw it first");
            assert_eq!(store.acknowledge(99, "ann").await.unwrap(), None);
            store.close().await;
        }
    })
    .await;
}

#[tokio::test]
async fn more_alarms_than_the_budget_of_a_day_are_one() {
    everywhere(async |place| {
        let store = place.open().await;
        let (now, budget) = (unix_millis(), bridge_core::drift::ALARM_BUDGET);
        for n in 0..budget + 7 {
            hear(&store, window(n, now, &format!("f{n}"))).await;
        }
        // One that is known already is no news.
        hear(&store, window(1_000, now, "f0")).await;
        let concerns = store.concerns(Some(&"s".parse().unwrap()), true).await.unwrap();
        let held: Vec<_> =
            concerns.iter().filter(|(_, c)| c.device.is_none()).map(|(_, c)| (c.cause.as_str(), c.windows)).collect();
        assert_eq!((concerns.len() as u64, held), (budget + 1, vec![("budget", 7)]));
        assert_eq!(concerns.iter().find(|(_, c)| c.feature == "f0").unwrap().1.windows, 2);
    })
    .await;
}

/// A rollout as it was written before its devices had rows of their own.
const OLD_ROLLOUT: &str = r#"{"kind":"rollout","id":3,"stream":"digits","version":"1.1.0","release":1001000,
"bundle":"abababababababababababababababababababababababababababababababab","trial":{"min_answers":20,"max_errors":0,"window_s":600},
"max_failed":1,"deadline_s":600,"at_once":2,"waves":[["a-1"],["b.2","c"]],"phase":{"state":"rolling","wave":1},"wave_started":7,"started":4,"ended":null,
"before":{"a-1":null,"b.2":"cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd"},
"results":{"a-1":{"outcome":"confirmed","code":null,"detail":null,"answers":20,"errors":0}}}"#;

#[tokio::test]
async fn a_rollout_of_an_earlier_version_has_members_and_a_policy() {
    let place = Place::sqlite();
    let store = place.open().await;
    // As if the last migration had not been yet.
    sqlx::query("DELETE FROM _sqlx_migrations WHERE version = 42")
        .execute(&mut *store.turn().await.unwrap())
        .await
        .unwrap();
    let old = sqlx::query("INSERT INTO record VALUES ('rollout', '3', ?)").bind(OLD_ROLLOUT);
    old.execute(&mut *store.turn().await.unwrap()).await.unwrap();
    store.close().await;

    let records = place.open().await.records().await.unwrap();
    let bridge = bridge_core::Bridge::restore("sea".parse().unwrap(), records).unwrap();
    let rollout = &bridge.rollouts()[&3];
    assert_eq!((rollout.phase.wave(), rollout.waves(), rollout.to.to_string()), (Some(1), 2, "a-1,b.2,c".into()));
    assert_eq!(
        (rollout.policy.gates.max_failed, rollout.policy.at_once, rollout.policy.silence.deadline.0),
        (1, Some(2), 600_000)
    );
    let member = |id: &str| &rollout.members[&device(id)];
    let [a, b, c] = ["a-1", "b.2", "c"].map(member);
    assert_eq!(
        [a, b, c].map(|m| (m.wave, m.is_hit(), m.result.is_some())),
        [(0, true, true), (1, true, false), (1, false, false)]
    );
    assert_eq!((a.before, b.before.map(|bundle| bundle.0[0])), (None, Some(0xcd)));
}

/// Whatever version wrote a database, this one brings it to its form, and what was in it is there.
#[tokio::test]
async fn every_earlier_form_becomes_this_one() {
    let forms: Vec<_> = Dialect::Sqlite.migrator().iter().collect();
    let shape = async |store: &Store| {
        let said = "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL AND tbl_name NOT LIKE '\\_sqlx%' ESCAPE '\\' ORDER BY sql";
        sqlx::query_scalar::<_, String>(said).fetch_all(&store.readers).await.unwrap()
    };
    let fresh = Place::sqlite();
    let store = fresh.open().await;
    let now = shape(&store).await;
    store.close().await;
    for known in 1..forms.len() {
        let place = Place::sqlite();
        let (Database::File(data), Database::File(fresh)) = (&place.database, &fresh.database) else { unreachable!() };
        let path = data.join(database::FILE).display().to_string();
        let mut old = AnyConnection::connect(&format!("sqlite:{path}?mode=rwc")).await.unwrap();
        let last = forms[known - 1].version;
        let noted = format!(
            "ATTACH '{}' AS fresh; CREATE TABLE _sqlx_migrations AS SELECT * FROM fresh._sqlx_migrations WHERE version <= {last};
             INSERT INTO record VALUES ('put_back', '', '{{\"kind\":\"putback\",\"at\":7}}');
             INSERT INTO token (sha256, role, created) VALUES (x'00', 'admin', 1);",
            fresh.join(database::FILE).display()
        );
        for form in &forms[..known] {
            sqlx::raw_sql(form.sql.clone()).execute(&mut old).await.unwrap();
        }
        sqlx::raw_sql(AssertSqlSafe(noted)).execute(&mut old).await.unwrap();
        old.close().await.unwrap();
        let store = place.open().await;
        assert_eq!(shape(&store).await, now, "after {last}");
        assert_eq!(store.records().await.unwrap(), [Record::PutBack { at: 7 }], "after {last}");
        let tokens: i64 = sqlx::query_scalar("SELECT count(*) FROM token").fetch_one(&store.readers).await.unwrap();
        assert_eq!(tokens, 1, "after {last}");
        store.close().await;
    }
}

/// Somebody asks and goes away, at any moment: what others write after that is there, and stays.
#[tokio::test]
async fn whoever_goes_away_leaves_no_transaction_open() {
    everywhere(async |place| {
        let store = place.open().await;
        let deed = Deed::new("admin", "device.approve", "edge-1", "done");
        for polls in 1..40 {
            {
                let mut gone = std::pin::pin!(store.witness(&deed));
                for _ in 0..polls {
                    let polled = std::future::poll_fn(|context| std::task::Poll::Ready(gone.as_mut().poll(context)));
                    if polled.await.is_ready() {
                        break;
                    }
                    tokio::task::yield_now().await;
                }
            }
            let (_, kept) = store.new_join_token(&device("a"), 60_000, false).await.unwrap();
            store.is_writable().await.unwrap();
            let known = store.join_tokens().await.unwrap();
            assert!(known.iter().any(|one| one.id == kept.id), "after {polls}");
        }
        store.close().await;
    })
    .await;
}

/// What a table holds is said twice, once for each database.
#[tokio::test]
async fn both_databases_have_the_same_tables() {
    let versions = |dialect: Dialect| dialect.migrator().iter().map(|migration| migration.version).max();
    assert_eq!(versions(Dialect::Sqlite), versions(Dialect::Postgres), "a change has a file for each");
    let sqlite = Place::sqlite().open().await;
    let tables = copy::tables(&mut sqlite.turn().await.unwrap()).await.unwrap();
    assert!(tables.len() >= 10);
    let Some(place) = Place::postgres().await else { return };
    let mut known = Vec::new();
    for table in &tables {
        for column in &table.columns {
            let kind = match column.kind {
                copy::Kind::Number => "bigint",
                copy::Kind::Text => "text",
                copy::Kind::Bytes => "bytea",
            };
            known.push(format!("{}.{} {kind}", table.name, column.name));
        }
    }
    known.sort_unstable();
    let said = "SELECT table_name || '.' || column_name || ' ' || data_type FROM information_schema.columns
                WHERE table_schema = current_schema() AND table_name <> '_sqlx_migrations'";
    let store = place.open().await;
    let mut there = sqlx::query_scalar::<_, String>(said).fetch_all(&store.readers).await.unwrap();
    there.sort_unstable();
    assert_eq!(there, known);
}

/// Two bridges would give devices two orders.
#[tokio::test]
async fn one_bridge_at_a_time_uses_a_server() {
    let Some(place) = Place::postgres().await else { return };
    let store = place.open().await;
    let second = Store::open(&place.database, "sea").await.unwrap_err();
    assert!(format!("{second:#}").contains("another bridge uses it now"), "{second:#}");
    store.close().await;
    place.open().await.close().await;
}
