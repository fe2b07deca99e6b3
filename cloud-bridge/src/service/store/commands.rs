//! What people asked of devices, and what came of it.
//!
//! The latest of each device are kept, and of those that brought diagnostics, which are large, fewer.

use super::database::Dialect;
use super::{Store, VALUE, portions, samples};
use anyhow::Context;
use bridge_core::{CommandDraft, UnixMillis};
use protocol::{CommandOutcome, CommandResult, DeviceId, Sample};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, AssertSqlSafe, Row};
use std::collections::{BTreeMap, BTreeSet};

/// Commands that are kept of each device.
pub(crate) const KEPT: u32 = 50;
/// Of the latest so many the diagnostics are.
const KEPT_WHOLE: u32 = 5;

/// A command, and what came of it so far.
#[derive(Debug)]
pub(crate) struct Given {
    /// What was signed.
    pub(crate) draft: CommandDraft,
    /// When the device answered, and what.
    pub(crate) answer: Option<(UnixMillis, CommandResult)>,
}

/// What came of the commands of a fan-out so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Answers {
    /// Commands that nobody answered.
    pub(crate) none: u64,
    pub(crate) done: u64,
    pub(crate) refused: u64,
    pub(crate) failed: u64,
}

/// A device's answer to a command, and the inputs that it gives for a request of this number.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) result: CommandResult,
    pub(crate) samples: Option<(u64, Vec<Sample>)>,
}

/// What an answer to a command is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reply {
    /// The first one: it is kept.
    First,
    /// One that was there: its first word counts.
    Again,
    /// To no command that is known here.
    Unasked,
}

/// Keeps commands in the transaction that counts them; of one number the last.
pub(super) async fn save(
    connection: &mut AnyConnection,
    dialect: Dialect,
    drafts: BTreeMap<(&DeviceId, u64), &CommandDraft>,
) -> anyhow::Result<()> {
    let texts = drafts.values().map(serde_json::to_string).collect::<Result<Vec<String>, _>>()?;
    let written: Vec<_> = drafts.values().copied().zip(texts).collect();
    let bytes = |(draft, text): &(&CommandDraft, String)| draft.device.as_str().len() + text.len() + 5 * VALUE;
    for some in portions(&written, dialect, bytes) {
        let rows = dialect.rows(some.len(), 5);
        let kept = format!(
            "INSERT INTO command (device, seq, at, draft, fan_out) VALUES {rows} ON CONFLICT (device, seq) DO UPDATE
             SET at = excluded.at, draft = excluded.draft, fan_out = excluded.fan_out, answered = NULL, result = NULL"
        );
        let mut kept = sqlx::query(AssertSqlSafe(kept));
        for (draft, text) in some {
            kept = kept.bind(draft.device.as_str()).bind(draft.seq.cast_signed());
            kept =
                kept.bind(i64::try_from(draft.issued)?).bind(text.as_str()).bind(draft.fan_out.map(u64::cast_signed));
        }
        kept.execute(&mut *connection).await?;
    }
    // Numbers begin at 1: of most devices there is nothing to forget.
    let latest: BTreeMap<&DeviceId, u64> = drafts.into_keys().collect();
    let latest: Vec<_> = latest.into_iter().filter(|(_, seq)| *seq > u64::from(KEPT_WHOLE)).collect();
    for some in portions(&latest, dialect, |(device, _)| device.as_str().len() + 2 * VALUE) {
        forget(connection, dialect, some).await?;
    }
    Ok(())
}

/// Whether an answer says this of itself. In a JSON text these letters stand nowhere but where the member is.
fn has(outcome: CommandOutcome) -> &'static str {
    match outcome {
        CommandOutcome::Done => r#"result LIKE '%"outcome":"done"%'"#,
        CommandOutcome::Refused => r#"result LIKE '%"outcome":"refused"%'"#,
        CommandOutcome::Failed => r#"result LIKE '%"outcome":"failed"%'"#,
    }
}

/// Lets go what is too old, now that these are the latest of their devices.
async fn forget(connection: &mut AnyConnection, dialect: Dialect, latest: &[(&DeviceId, u64)]) -> anyhow::Result<()> {
    let rows = dialect.rows(latest.len(), 2);
    // The latest come first: of each device its own commands are looked up.
    let old = format!(
        "WITH latest(whose, number) AS (VALUES {rows}) DELETE FROM command WHERE (device, seq) IN
         (SELECT device, seq FROM latest CROSS JOIN command WHERE device = whose AND seq <= number - {KEPT})"
    );
    // As the index has it: of most devices there is none.
    let large = format!(
        "WITH latest(whose, number) AS (VALUES {rows}) SELECT device, seq, result FROM latest CROSS JOIN command
         WHERE device = whose AND seq <= number - {KEPT_WHOLE} AND result LIKE '%\"diagnostics\":{{%'"
    );
    let (mut old, mut large) = (sqlx::query(AssertSqlSafe(old)), sqlx::query(AssertSqlSafe(large)));
    for (device, seq) in latest {
        old = old.bind(device.as_str()).bind(seq.cast_signed());
        large = large.bind(device.as_str()).bind(seq.cast_signed());
    }
    old.execute(&mut *connection).await?;
    for row in large.fetch_all(&mut *connection).await? {
        let mut result: CommandResult = serde_json::from_str(row.try_get("result")?)?;
        result.diagnostics = None;
        sqlx::query("UPDATE command SET result = $1 WHERE device = $2 AND seq = $3")
            .bind(serde_json::to_string(&result)?)
            .bind(row.try_get::<&str, _>("device")?)
            .bind(row.try_get::<i64, _>("seq")?)
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

/// Keeps what devices say of commands that they were given, of each the first. Inputs that they give for a request are kept apart.
pub(super) async fn answer(
    connection: &mut AnyConnection,
    dialect: Dialect,
    answers: &[Answered],
    now: UnixMillis,
) -> anyhow::Result<()> {
    let mut first = BTreeMap::new();
    for Answered { result, samples } in answers {
        first.entry((result.device_id.as_str(), result.seq.cast_signed())).or_insert((result, samples));
    }
    let write = |(key, (result, _)): (&_, &(&CommandResult, _))| Ok((*key, serde_json::to_string(result)?));
    let written = first.iter().map(write).collect::<Result<Vec<((&str, i64), String)>, serde_json::Error>>()?;
    for some in portions(&written, dialect, |((device, _), text)| device.len() + text.len() + 4 * VALUE) {
        // A join, on purpose: of so few rows each is looked up, as soon as the server has counted the table once.
        let kept = format!(
            "WITH said(whose, number, at, text) AS (VALUES {}) UPDATE command SET answered = said.at, result = said.text
             FROM said WHERE device = said.whose AND seq = said.number AND result IS NULL RETURNING device, seq",
            dialect.rows(some.len(), 4)
        );
        let mut kept = sqlx::query(AssertSqlSafe(kept));
        for ((device, seq), text) in some {
            kept = kept.bind(*device).bind(*seq).bind(i64::try_from(now)?).bind(text.as_str());
        }
        for row in kept.fetch_all(&mut *connection).await? {
            if let Some((result, Some((request, samples)))) = first.get(&(row.try_get("device")?, row.try_get("seq")?))
            {
                samples::keep(connection, *request, &result.device_id, samples, now).await?;
            }
        }
    }
    Ok(())
}

impl Store {
    /// What each of these answers to commands would be here, by itself.
    pub(crate) async fn replies(&self, results: &[&CommandResult]) -> anyhow::Result<Vec<Reply>> {
        let command = |result: &CommandResult| (result.device_id.to_string(), result.seq.cast_signed());
        // Who says something a hundred times is looked up once.
        let commands: BTreeSet<(String, i64)> = results.iter().map(|result| command(result)).collect();
        let (commands, mut known) = (Vec::from_iter(commands), BTreeMap::new());
        for some in portions(&commands, self.dialect, |(device, _)| device.len() + 2 * VALUE) {
            // What came is not looked into: an answer of another version must not keep the bridge from hearing it again.
            let asked = format!(
                "WITH said(device, seq) AS (VALUES {}) SELECT device, seq,
                 (SELECT draft FROM command AS c WHERE c.device = said.device AND c.seq = said.seq) AS draft,
                 (SELECT count(*) FROM command AS c WHERE c.device = said.device AND c.seq = said.seq AND c.result IS NULL) AS waits
                 FROM said",
                self.dialect.rows(some.len(), 2)
            );
            let mut asked = sqlx::query(AssertSqlSafe(asked));
            for (device, seq) in some {
                asked = asked.bind(device.as_str()).bind(*seq);
            }
            for row in asked.fetch_all(&self.readers).await? {
                let Some(draft) = row.try_get::<Option<&str>, _>("draft")? else { continue };
                let mut draft: serde_json::Value = serde_json::from_str(draft)?;
                let reply = if row.try_get::<i64, _>("waits")? > 0 { Reply::First } else { Reply::Again };
                known.insert((row.try_get("device")?, row.try_get("seq")?), (draft["nonce"].take(), reply));
            }
        }
        let reply = |result: &&CommandResult| match known.get(&command(result)) {
            Some((nonce, reply)) if *nonce == result.nonce.as_str() => *reply,
            Some(_) | None => Reply::Unasked,
        };
        Ok(results.iter().map(reply).collect())
    }

    /// The latest commands of a device, the oldest first.
    pub(crate) async fn commands(&self, device: &DeviceId, limit: u32) -> anyhow::Result<Vec<Given>> {
        let rows =
            sqlx::query("SELECT draft, answered, result FROM command WHERE device = $1 ORDER BY seq DESC LIMIT $2")
                .bind(device.as_str())
                .bind(i64::from(limit))
                .fetch_all(&self.readers)
                .await?;
        rows.iter().rev().map(given).collect()
    }

    /// The commands of a fan-out, by their devices, which have one each: those `after` a device, with an outcome or none.
    pub(crate) async fn commands_of(
        &self,
        fan_out: u64,
        outcome: Option<Option<CommandOutcome>>,
        after: Option<&DeviceId>,
        limit: u32,
    ) -> anyhow::Result<Vec<Given>> {
        let such = match outcome {
            None => String::new(),
            Some(None) => "AND result IS NULL".into(),
            Some(Some(outcome)) => format!("AND {}", has(outcome)),
        };
        let some = format!(
            "SELECT draft, answered, result FROM command WHERE fan_out = $1 AND device > $2 {such} ORDER BY device, seq LIMIT $3"
        );
        let some = sqlx::query(AssertSqlSafe(some)).bind(fan_out.cast_signed());
        let some = some.bind(after.map_or("", DeviceId::as_str)).bind(i64::from(limit));
        some.fetch_all(&self.readers).await?.iter().map(given).collect()
    }

    /// How many of them were answered, and how.
    pub(crate) async fn answers(&self, fan_out: u64) -> anyhow::Result<Answers> {
        let [done, refused, failed] = [CommandOutcome::Done, CommandOutcome::Refused, CommandOutcome::Failed].map(has);
        let counts = format!(
            "SELECT count(CASE WHEN result IS NULL THEN 1 END) AS none, count(CASE WHEN {done} THEN 1 END) AS done,
             count(CASE WHEN {refused} THEN 1 END) AS refused, count(CASE WHEN {failed} THEN 1 END) AS failed
             FROM command WHERE fan_out = $1"
        );
        let row = sqlx::query(AssertSqlSafe(counts)).bind(fan_out.cast_signed()).fetch_one(&self.readers).await?;
        let number = |name: &str| row.try_get::<i64, _>(name).map(i64::cast_unsigned);
        Ok(Answers {
            none: number("none")?,
            done: number("done")?,
            refused: number("refused")?,
            failed: number("failed")?,
        })
    }

    /// One of them.
    pub(crate) async fn command(&self, device: &DeviceId, seq: u64) -> anyhow::Result<Option<Given>> {
        let row = sqlx::query("SELECT draft, answered, result FROM command WHERE device = $1 AND seq = $2")
            .bind(device.as_str())
            .bind(seq.cast_signed())
            .fetch_optional(&self.readers)
            .await?;
        row.as_ref().map(given).transpose()
    }
}

fn given(row: &AnyRow) -> anyhow::Result<Given> {
    let draft = serde_json::from_str(row.try_get("draft")?).context("a command of the database is not understood")?;
    let answered: Option<i64> = row.try_get("answered")?;
    let result: Option<&str> = row.try_get("result")?;
    let answer = match (answered, result) {
        (Some(at), Some(result)) => Some((u64::try_from(at)?, serde_json::from_str(result)?)),
        (None, _) | (_, None) => None,
    };
    Ok(Given { draft, answer })
}

#[cfg(test)]
mod tests {
    use super::super::Words;
    use super::super::tests::everywhere;
    use super::*;
    use bridge_core::{Numbers, Record};
    use protocol::Diagnostics;
    use trust::Request;

    fn draft(device: &str, seq: u64) -> CommandDraft {
        CommandDraft {
            device: device.parse().unwrap(),
            seq,
            issued: seq,
            deadline: seq + 30_000,
            nonce: format!("nonce {}", seq / 10),
            heard: 0,
            numbers: Numbers::default(),
            request: Request::Diagnostics {},
            fan_out: None,
        }
    }

    fn result(of: &CommandDraft) -> CommandResult {
        let done = CommandResult::done("sea".parse().unwrap(), of.device.clone(), of.nonce.clone(), of.seq);
        let diagnostics = Diagnostics { log: vec!["a line".into()], ..Diagnostics::default() };
        CommandResult { diagnostics: Some(diagnostics), ..done }
    }

    #[tokio::test]
    async fn each_command_is_answered_once_and_the_latest_are_kept() {
        everywhere(async |place| {
            let store = place.open().await;
            let (edge, other) = ("edge-1".parse().unwrap(), "edge-2".parse().unwrap());
            let give = async |draft: &CommandDraft| {
                store.save(&[Record::Command(Box::new(draft.clone()))], &Words::default()).await.unwrap();
            };
            give(&draft("edge-2", 1)).await;
            for seq in 1..=60 {
                let draft = draft("edge-1", seq);
                give(&draft).await;
                assert!(store.command(&edge, seq).await.unwrap().unwrap().answer.is_none());
                let said = result(&draft);
                let kept = async |result: CommandResult| {
                    let reply = store.replies(&[&result]).await.unwrap()[0];
                    if reply != Reply::Unasked {
                        let answers = vec![Answered { result, samples: None }];
                        store.save(&[], &Words { answers, ..Words::default() }).await.unwrap();
                    }
                    reply
                };
                assert_eq!(kept(CommandResult { nonce: "another".into(), ..said.clone() }).await, Reply::Unasked);
                assert_eq!(kept(CommandResult { seq: seq + 1, ..said.clone() }).await, Reply::Unasked);
                assert_eq!(kept(said.clone()).await, Reply::First, "{seq}");
                let again = CommandResult { outcome: CommandOutcome::Failed, ..said.clone() };
                assert_eq!(kept(again).await, Reply::Again, "{seq} once more");
                assert_eq!(store.command(&edge, seq).await.unwrap().unwrap().answer.unwrap().1, said);
            }
            let kept = store.commands(&edge, 1_000).await.unwrap();
            assert_eq!(kept.iter().map(|given| given.draft.seq).collect::<Vec<_>>(), (11..=60).collect::<Vec<_>>());
            let whole = kept.iter().filter(|given| given.answer.as_ref().unwrap().1.diagnostics.is_some());
            assert_eq!(whole.map(|given| given.draft.seq).collect::<Vec<_>>(), [56, 57, 58, 59, 60]);
            assert_eq!(store.commands(&edge, 2).await.unwrap()[0].draft.seq, 59);
            assert_eq!(store.commands(&other, 9).await.unwrap().len(), 1);
            assert!(store.command(&other, 2).await.unwrap().is_none());

            // Many at once: each by itself, and of one command the first.
            let given = [draft("edge-3", 1), draft("edge-3", 2), draft("edge-4", 1)];
            let records: Vec<_> = given.iter().map(|draft| Record::Command(Box::new(draft.clone()))).collect();
            store.save(&records, &Words::default()).await.unwrap();
            let said = [result(&given[0]), result(&given[1]), result(&draft("edge-5", 1))];
            let all: Vec<&CommandResult> = said.iter().collect();
            assert_eq!(store.replies(&all).await.unwrap(), [Reply::First, Reply::First, Reply::Unasked]);
            let second = CommandResult { outcome: CommandOutcome::Failed, ..said[0].clone() };
            let samples = Some((7, Vec::new()));
            let answers = vec![
                Answered { result: said[0].clone(), samples: samples.clone() },
                Answered { result: second.clone(), samples: None },
                Answered { result: said[1].clone(), samples: None },
            ];
            store.save(&[], &Words { answers, ..Words::default() }).await.unwrap();
            assert_eq!(store.replies(&all).await.unwrap(), [Reply::Again, Reply::Again, Reply::Unasked]);
            let three = "edge-3".parse().unwrap();
            let kept = store.commands(&three, 9).await.unwrap();
            let kept: Vec<_> = kept.into_iter().map(|given| given.answer.unwrap().1).collect();
            assert_eq!(kept, said[..2]);
            assert!(store.command(&"edge-4".parse().unwrap(), 1).await.unwrap().unwrap().answer.is_none());
            // Inputs come with the answer that is kept, and with no other.
            let late = Answered { result: second, samples: Some((8, Vec::new())) };
            store.save(&[], &Words { answers: vec![late], ..Words::default() }).await.unwrap();
            let given = async |request| store.samples(request).await.unwrap().len();
            assert_eq!((given(7).await, given(8).await), (1, 0));

            // Of a fan-out each is counted by what it said, whatever that looks like.
            let of = |device: &str, seq| CommandDraft { fan_out: Some(3), ..draft(device, seq) };
            let drafts = ["edge-6", "edge-7", "edge-8", "edge-9"].map(|device| of(device, 60));
            let records: Vec<_> = drafts.iter().map(|draft| Record::Command(Box::new(draft.clone()))).collect();
            store.save(&records, &Words::default()).await.unwrap();
            let outcomes = [CommandOutcome::Done, CommandOutcome::Refused, CommandOutcome::Failed];
            let detail = Some(r#""outcome":"done""#.to_owned());
            let said = drafts.iter().zip(outcomes).map(|(draft, outcome)| Answered {
                result: CommandResult { outcome, detail: detail.clone(), ..result(draft) },
                samples: None,
            });
            store.save(&[], &Words { answers: said.collect(), ..Words::default() }).await.unwrap();
            let counted = Answers { none: 1, done: 1, refused: 1, failed: 1 };
            assert_eq!(store.answers(3).await.unwrap(), counted);
            assert_eq!(store.answers(4).await.unwrap(), Answers::default());
            let told = async |outcome, after: Option<&str>, limit| {
                let after = after.map(|id| id.parse().unwrap());
                let told = store.commands_of(3, outcome, after.as_ref(), limit).await.unwrap();
                told.into_iter().map(|given| given.draft.device.to_string()).collect::<Vec<_>>()
            };
            assert_eq!(told(None, None, 9).await, ["edge-6", "edge-7", "edge-8", "edge-9"]);
            assert_eq!(told(None, Some("edge-6"), 2).await, ["edge-7", "edge-8"]);
            assert_eq!(told(Some(Some(CommandOutcome::Failed)), None, 9).await, ["edge-8"]);
            assert_eq!(told(Some(None), None, 9).await, ["edge-9"]);

            // What is too old of several devices goes at once, and of each its own.
            let old =
                ["edge-7", "edge-8"].map(|device| [draft(device, 3), draft(device, 54), draft(device, 55)]).concat();
            let records: Vec<_> = old.iter().map(|draft| Record::Command(Box::new(draft.clone()))).collect();
            store.save(&records, &Words::default()).await.unwrap();
            let answers = old.iter().map(|draft| Answered { result: result(draft), samples: None }).collect();
            store.save(&[], &Words { answers, ..Words::default() }).await.unwrap();
            let next = [draft("edge-7", 61), draft("edge-8", 60)].map(|draft| Record::Command(Box::new(draft)));
            store.save(&next, &Words::default()).await.unwrap();
            let whole = async |device: &str| {
                let kept = store.commands(&device.parse().unwrap(), 9).await.unwrap();
                let row = |given: &Given| {
                    (given.draft.seq, given.answer.as_ref().map(|(_, said)| said.diagnostics.is_some()))
                };
                kept.iter().map(row).collect::<Vec<_>>()
            };
            let edge_7 = [(54, Some(false)), (55, Some(false)), (60, Some(true)), (61, None)];
            assert_eq!(whole("edge-7").await, edge_7);
            assert_eq!(whole("edge-8").await, [(54, Some(false)), (55, Some(false)), (60, None)]);
        })
        .await;
    }
}
