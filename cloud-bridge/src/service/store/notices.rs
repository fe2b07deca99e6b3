//! What webhooks are still to be told, on disk until they have it.

use super::{Store, plain};
use bridge_core::notice::{Notice, means};
use bridge_core::{Record, UnixMillis};
use protocol::FleetId;
use sqlx::{AnyConnection, Row};
use std::collections::BTreeSet;

/// The most that waits for one webhook: then the oldest goes.
const MOST_WAITING: i64 = 10_000;

/// Which events a webhook wants: all when it names none.
#[derive(Debug, Clone)]
pub(crate) struct Wants {
    /// Its name.
    pub(crate) hook: String,
    /// Kinds, or their first words.
    pub(crate) kinds: Vec<String>,
}

impl Wants {
    fn wants(&self, notice: &Notice) -> bool {
        self.kinds.is_empty() || self.kinds.iter().any(|name| means(name, &notice.kind))
    }
}

/// One event for one webhook.
#[derive(Debug, Clone)]
pub(crate) struct Waiting {
    /// Its number.
    pub(crate) id: i64,
    /// What.
    pub(crate) kind: String,
    /// Since when, milliseconds since 1970.
    pub(crate) at: UnixMillis,
    /// The CloudEvent.
    pub(crate) body: String,
    /// How often it was tried.
    pub(crate) tries: u32,
    /// When it is tried again; nothing when it was given up.
    pub(crate) due: Option<UnixMillis>,
    /// What came of the last try.
    pub(crate) error: Option<String>,
}

impl Store {
    /// What `record` has to say to webhooks, against what it replaces: `before`, or what the database has.
    pub(super) async fn note(
        &self,
        connection: &mut AnyConnection,
        before: Option<&Record>,
        record: &Record,
    ) -> anyhow::Result<()> {
        let Record::Rollout(now) = record else { return Ok(()) };
        if self.wants.is_empty() {
            return Ok(());
        }
        let kept = match before {
            Some(_) => None,
            None => {
                let body: Option<String> =
                    sqlx::query_scalar("SELECT body FROM record WHERE kind = 'rollout' AND key = $1")
                        .bind(now.id.to_string())
                        .fetch_optional(&mut *connection)
                        .await?;
                body.map(|body| serde_json::from_str(&body)).transpose()?
            }
        };
        let before = match before.or(kept.as_ref()) {
            Some(Record::Rollout(before)) => Some(&**before),
            Some(_) | None => None,
        };
        self.announce(connection, Notice::of_rollout(before, now)).await
    }

    /// Puts notices into the boxes of those who want them.
    pub(super) async fn announce(
        &self,
        connection: &mut AnyConnection,
        notices: impl IntoIterator<Item = Notice>,
    ) -> anyhow::Result<()> {
        for notice in notices {
            let hooks: Vec<&str> =
                self.wants.iter().filter(|wants| wants.wants(&notice)).map(|wants| wants.hook.as_str()).collect();
            self.box_up(connection, &notice, &hooks).await?;
        }
        Ok(())
    }

    async fn box_up(&self, connection: &mut AnyConnection, notice: &Notice, hooks: &[&str]) -> anyhow::Result<()> {
        let (now, fleet): (_, FleetId) = (self.now(), self.fleet.parse()?);
        let body = notice.event(&fleet, &hex::encode(self.chance::<16>()?), now).to_string();
        for hook in hooks {
            sqlx::query("INSERT INTO notice (hook, kind, at, body, due) VALUES ($1, $2, $3, $4, $3)")
                .bind(*hook)
                .bind(&notice.kind)
                .bind(i64::try_from(now)?)
                .bind(&body)
                .execute(&mut *connection)
                .await?;
            sqlx::query(
                "DELETE FROM notice WHERE hook = $1 AND id <= (SELECT id FROM notice WHERE hook = $1 ORDER BY id DESC LIMIT 1 OFFSET $2)",
            )
            .bind(*hook)
            .bind(MOST_WAITING)
            .execute(&mut *connection)
            .await?;
        }
        Ok(())
    }

    /// Puts a notice into one box, whatever that wants.
    pub(crate) async fn try_hook(&self, hook: &str, notice: &Notice) -> anyhow::Result<()> {
        let mut writer = self.turn().await?;
        let mut transaction = self.begin(&mut writer).await?;
        // One is enough, and many would take the place of others.
        let before = sqlx::query("DELETE FROM notice WHERE hook = $1 AND kind = $2").bind(hook).bind(&notice.kind);
        before.execute(&mut *transaction).await?;
        self.box_up(&mut transaction, notice, &[hook]).await?;
        transaction.commit().await?;
        self.noticed.send_replace(());
        Ok(())
    }

    /// What is due for one, the oldest first.
    pub(crate) async fn notices_due(&self, hook: &str, limit: u32) -> anyhow::Result<Vec<Waiting>> {
        let rows = sqlx::query("SELECT * FROM notice WHERE hook = $1 AND due <= $2 ORDER BY due, id LIMIT $3");
        let rows =
            rows.bind(hook).bind(i64::try_from(self.now())?).bind(i64::from(limit)).fetch_all(&self.readers).await?;
        rows.iter().map(waiting).collect()
    }

    /// When the next one is.
    pub(crate) async fn next_notice(&self, hook: &str) -> anyhow::Result<Option<UnixMillis>> {
        let due = sqlx::query_scalar("SELECT min(due) FROM notice WHERE hook = $1").bind(hook);
        let due: Option<i64> = due.fetch_one(&self.readers).await?;
        Ok(due.map(u64::try_from).transpose()?)
    }

    /// How many are still tried, how many were given up, and what came of the last try.
    pub(crate) async fn box_of(&self, hook: &str) -> anyhow::Result<(u64, u64, Option<String>)> {
        let row = sqlx::query(
            "SELECT count(due) AS waiting, count(*) - count(due) AS given_up,
             (SELECT error FROM notice WHERE hook = $1 AND error IS NOT NULL ORDER BY id DESC LIMIT 1) AS error
             FROM notice WHERE hook = $1",
        );
        let row = row.bind(hook).fetch_one(&self.readers).await?;
        let count = |name: &str| anyhow::Ok(u64::try_from(row.try_get::<i64, _>(name)?)?);
        Ok((count("waiting")?, count("given_up")?, row.try_get("error")?))
    }

    /// What waits for others than these goes: they stand in the configuration no more.
    pub(crate) async fn keep_boxes<'a>(&self, hooks: impl Iterator<Item = &'a str>) -> anyhow::Result<()> {
        let known: BTreeSet<&str> = hooks.collect();
        let boxes =
            sqlx::query_scalar::<_, String>("SELECT DISTINCT hook FROM notice").fetch_all(&self.readers).await?;
        for gone in boxes.iter().filter(|hook| !known.contains(hook.as_str())) {
            let gone = sqlx::query("DELETE FROM notice WHERE hook = $1").bind(gone);
            gone.execute(&mut *self.turn().await?).await?;
        }
        Ok(())
    }

    /// All that waits or was given up, the newest first.
    pub(crate) async fn notices(&self, hook: &str, limit: u32) -> anyhow::Result<Vec<Waiting>> {
        let rows = sqlx::query("SELECT * FROM notice WHERE hook = $1 ORDER BY id DESC LIMIT $2");
        rows.bind(hook).bind(i64::from(limit)).fetch_all(&self.readers).await?.iter().map(waiting).collect()
    }

    /// It was taken.
    pub(crate) async fn told(&self, id: i64) -> anyhow::Result<()> {
        sqlx::query("DELETE FROM notice WHERE id = $1").bind(id).execute(&mut *self.turn().await?).await?;
        Ok(())
    }

    /// It was not taken, and is tried again at `due`, if at all.
    pub(crate) async fn untold(&self, id: i64, due: Option<UnixMillis>, error: &str) -> anyhow::Result<()> {
        sqlx::query("UPDATE notice SET tries = tries + 1, due = $1, error = $2 WHERE id = $3")
            .bind(due.map(i64::try_from).transpose()?)
            .bind(plain(error))
            .bind(id)
            .execute(&mut *self.turn().await?)
            .await?;
        Ok(())
    }

    /// Whatever was given up is tried once more, from the beginning; how many that are.
    pub(crate) async fn tell_again(&self, hook: &str) -> anyhow::Result<u64> {
        let again = sqlx::query("UPDATE notice SET tries = 0, due = $1 WHERE hook = $2 AND due IS NULL");
        let again = again.bind(i64::try_from(self.now())?).bind(hook).execute(&mut *self.turn().await?).await?;
        self.noticed.send_replace(());
        Ok(again.rows_affected())
    }
}

fn waiting(row: &sqlx::any::AnyRow) -> anyhow::Result<Waiting> {
    Ok(Waiting {
        id: row.try_get("id")?,
        kind: row.try_get("kind")?,
        at: u64::try_from(row.try_get::<i64, _>("at")?)?,
        body: row.try_get("body")?,
        tries: u32::try_from(row.try_get::<i64, _>("tries")?)?,
        due: row.try_get::<Option<i64>, _>("due")?.map(u64::try_from).transpose()?,
        error: row.try_get("error")?,
    })
}
