//! The audit log on disk: lines are added in the transaction of what they tell of, and never changed.
//!
//! How lines hold each other is decided by `bridge_core::audit`. The end of the log is read inside each
//! transaction that adds to it, so no two lines can follow the same one.

use super::{Store, VALUE, portions};
use bridge_core::audit::{Deed, Head, Line};
use bridge_core::notice::means;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, AssertSqlSafe, Row};
use trust::Digest;

/// The most lines that are read at once.
pub(crate) const MAX_LINES: u32 = 1_000;

/// Which lines of the log.
#[derive(Debug, Clone, Default)]
pub(crate) struct Which {
    /// Those behind this number, from there on; otherwise the last ones.
    pub(crate) after: Option<u64>,
    /// How many.
    pub(crate) limit: u32,
    /// Written at this time or later, milliseconds since 1970.
    pub(crate) since: Option<u64>,
    /// Of this name.
    pub(crate) who: Option<String>,
    /// This action, or one that begins with it and a dot.
    pub(crate) action: Option<String>,
}

impl Which {
    /// Whether it is not said which.
    pub(crate) fn is_any(&self) -> bool {
        self.since.is_none() && self.who.is_none() && self.action.is_none()
    }

    /// A line that somebody damaged may say nothing: it is found by whoever verifies, who asks for any.
    fn means(&self, line: &Line) -> bool {
        self.is_any()
            || line.entry().is_some_and(|entry| {
                self.since.is_none_or(|since| entry.at >= since)
                    && self.who.as_ref().is_none_or(|who| entry.who == *who)
                    && self.action.as_ref().is_none_or(|action| means(action, &entry.action))
            })
    }
}

impl Store {
    /// Adds a line to the audit log.
    pub(crate) async fn witness(&self, deed: &Deed) -> anyhow::Result<()> {
        let mut writer = self.turn().await?;
        let mut transaction = self.begin(&mut writer).await?;
        self.add(&mut transaction, [deed]).await?;
        Ok(transaction.commit().await?)
    }

    /// Adds lines in a transaction that writes already, or has the right to.
    pub(super) async fn add<'a>(
        &self,
        connection: &mut AnyConnection,
        deeds: impl IntoIterator<Item = &'a Deed>,
    ) -> anyhow::Result<()> {
        let mut deeds = deeds.into_iter().peekable();
        if deeds.peek().is_none() {
            return Ok(());
        }
        let mut head = self.head_within(connection).await?;
        let mut lines = Vec::new();
        for deed in deeds {
            let (line, next) = head.follow(self.now(), deed);
            lines.push((i64::try_from(next.seq)?, line));
            head = next;
        }
        for some in portions(&lines, self.dialect, |(_, line)| line.text.len() + 32 + 3 * VALUE) {
            let rows = self.dialect.rows(some.len(), 3);
            let mut added = sqlx::query(AssertSqlSafe(format!("INSERT INTO audit (seq, text, sha256) VALUES {rows}")));
            for (seq, line) in some {
                added = added.bind(*seq).bind(line.text.as_str()).bind(line.sha256.0.as_slice());
            }
            added.execute(&mut *connection).await?;
        }
        Ok(())
    }

    /// The end of the log.
    pub(crate) async fn audit_head(&self) -> anyhow::Result<Head> {
        self.head_within(&mut *self.readers.acquire().await?).await
    }

    /// The last of the lines that are gone, where some are.
    pub(crate) async fn audit_base(&self) -> anyhow::Result<Option<Head>> {
        let base = sqlx::query("SELECT seq, sha256 FROM audit_base").fetch_optional(&self.readers).await?;
        base.map(|row| Ok(Head { seq: u64::try_from(row.try_get::<i64, _>("seq")?)?, sha256: digest(&row) }))
            .transpose()
    }

    async fn head_within(&self, connection: &mut AnyConnection) -> anyhow::Result<Head> {
        let last = sqlx::query("SELECT seq, sha256 FROM audit ORDER BY seq DESC LIMIT 1");
        match last.fetch_optional(connection).await? {
            None => Ok(Head::empty(&self.fleet)),
            Some(row) => Ok(Head { seq: u64::try_from(row.try_get::<i64, _>("seq")?)?, sha256: digest(&row) }),
        }
    }

    /// Lines of the log, the oldest first.
    pub(crate) async fn audit(&self, which: &Which) -> anyhow::Result<Vec<Line>> {
        // Forwards from a line, or backwards from the end, and no further than is needed.
        let (some, at) = match which.after {
            Some(after) => ("SELECT seq, text, sha256 FROM audit WHERE seq > $1 ORDER BY seq LIMIT $2", after),
            None => {
                ("SELECT seq, text, sha256 FROM audit WHERE seq > 0 AND seq < $1 ORDER BY seq DESC LIMIT $2", u64::MAX)
            }
        };
        let mut at = i64::try_from(at).unwrap_or(i64::MAX);
        let limit = which.limit.clamp(1, MAX_LINES);
        let portion = if which.is_any() { limit } else { MAX_LINES };
        let mut lines = Vec::new();
        while lines.len() < limit as usize {
            let rows = sqlx::query(some).bind(at).bind(i64::from(portion)).fetch_all(&self.readers).await?;
            for row in &rows {
                at = row.try_get("seq")?;
                lines.extend(
                    Some(Line { text: row.try_get("text")?, sha256: digest(row) }).filter(|line| which.means(line)),
                );
            }
            if rows.len() < portion as usize {
                break;
            }
        }
        lines.truncate(limit as usize);
        if which.after.is_none() {
            lines.reverse();
        }
        Ok(lines)
    }
}

/// A digest that was damaged is some other digest: the line is then named by whoever verifies.
fn digest(row: &AnyRow) -> Digest {
    let bytes: Vec<u8> = row.try_get("sha256").unwrap_or_default();
    bytes.try_into().map_or(Digest([0; 32]), Digest)
}

#[cfg(test)]
mod tests {
    use super::super::tests::everywhere;
    use super::super::unix_millis;
    use super::*;
    use bridge_core::audit::{Damage, Verifier};

    fn deed(n: u64) -> Deed {
        Deed::new(["admin", "edge-1"][(n % 2) as usize], "device.approve", &format!("edge-{n}"), "done")
    }

    async fn write(store: &Store, lines: u64) {
        for n in 0..lines {
            store.witness(&deed(n)).await.unwrap();
        }
    }

    async fn verified(store: &Store) -> Result<Head, Damage> {
        let mut verifier = Verifier::new("sea", []);
        let mut after = 0;
        loop {
            let lines = store.audit(&Which { after: Some(after), limit: 7, ..Which::default() }).await.unwrap();
            if lines.is_empty() {
                return verifier.end();
            }
            for line in &lines {
                after = verifier.take(line)?.seq;
            }
        }
    }

    #[tokio::test]
    async fn lines_of_many_hands_follow_each_other() {
        everywhere(async |place| {
            let store = place.open().await;
            let hands = (0..4_u64).map(|hand| {
                let store = store.clone();
                tokio::spawn(async move {
                    for n in 0..8 {
                        store.witness(&deed(hand * 8 + n)).await.unwrap();
                    }
                })
            });
            for hand in hands.collect::<Vec<_>>() {
                hand.await.unwrap();
            }
            assert_eq!(verified(&store).await.unwrap().seq, 32);
            assert_eq!(verified(&store).await, Ok(store.audit_head().await.unwrap()));
        })
        .await;
    }

    /// T80 on the file itself: whoever changes the database is found, line by line.
    #[tokio::test]
    async fn whoever_edits_the_database_is_found() {
        for (sql, found) in [
            ("UPDATE audit SET text = replace(text, 'edge-4', 'edge-5') WHERE seq = 5", Damage::Edited { line: 5 }),
            (
                "UPDATE audit SET sha256 = (SELECT sha256 FROM audit WHERE seq = 4) WHERE seq = 5",
                Damage::Edited { line: 5 },
            ),
            ("UPDATE audit SET text = 'nothing' WHERE seq = 5", Damage::Edited { line: 5 }),
            ("DELETE FROM audit WHERE seq = 5", Damage::Displaced { line: 5, found: 6 }),
            (
                "UPDATE audit SET seq = -5 WHERE seq = 5; UPDATE audit SET seq = 5 WHERE seq = 8; UPDATE audit SET seq = 8 WHERE seq = -5",
                Damage::Displaced { line: 5, found: 8 },
            ),
            (
                "INSERT INTO audit SELECT 99, text, sha256 FROM audit WHERE seq = 3",
                Damage::Displaced { line: 13, found: 3 },
            ),
        ] {
            everywhere(async |place| {
                let store = place.open().await;
                write(&store, 12).await;
                verified(&store).await.unwrap();
                let edit = sqlx::raw_sql(sqlx::AssertSqlSafe(sql));
                edit.execute(&mut *store.turn().await.unwrap()).await.unwrap();
                assert_eq!(verified(&store).await, Err(found.clone()), "{sql}");
            })
            .await;
        }
    }

    #[tokio::test]
    async fn lines_are_found_by_time_name_and_action() {
        everywhere(async |place| {
            let store = place.open().await;
            write(&store, 6).await;
            store.witness(&Deed::new("admin", "rollout.start", "digits@1.0.0", "done")).await.unwrap();
            let found = async |which: Which| {
                let lines = store.audit(&which).await.unwrap();
                lines.iter().map(|line| line.entry().unwrap().seq).collect::<Vec<_>>()
            };
            let all = Which { limit: 100, ..Which::default() };
            assert_eq!(found(all.clone()).await, [1, 2, 3, 4, 5, 6, 7]);
            assert_eq!(found(Which { limit: 2, ..all.clone() }).await, [6, 7], "the last ones");
            assert_eq!(found(Which { after: Some(2), limit: 2, ..all.clone() }).await, [3, 4]);
            assert_eq!(found(Which { who: Some("edge-1".into()), ..all.clone() }).await, [2, 4, 6]);
            assert_eq!(found(Which { action: Some("rollout".into()), ..all.clone() }).await, [7]);
            assert_eq!(
                found(Which { action: Some("device.approve".into()), who: Some("admin".into()), ..all.clone() }).await,
                [1, 3, 5]
            );
            assert_eq!(found(Which { action: Some("roll".into()), ..all.clone() }).await, [] as [u64; 0]);
            assert_eq!(found(Which { since: Some(unix_millis() + 60_000), ..all }).await, [] as [u64; 0]);
        })
        .await;
    }
}
