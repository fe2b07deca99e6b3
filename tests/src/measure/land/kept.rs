//! What land has kept, as it lies in its database: read beside the bridge, and changed by nobody.
//!
//! Decides when it is whole: SQLite finds nothing wrong, every record is one, and every message is the one that its row says.

use anyhow::{Context, ensure};
use bridge_core::Record;
use protocol::Telemetry;
use sqlx::{AnyConnection, Connection, Row};
use std::collections::BTreeMap;
use tokio::runtime::{Builder, Runtime};

/// Some telemetry, behind what was read before.
const PAGE: &str = "SELECT device, run, seq, body FROM telemetry WHERE (device, run, seq) > ($1, $2, $3) ORDER BY device, run, seq LIMIT 5000";

/// The database of a bridge.
pub(super) struct Kept {
    runtime: Runtime,
    database: AnyConnection,
    is_file: bool,
}

impl Kept {
    /// The database at this URL, whose bridge runs.
    pub(super) fn open(url: &str) -> anyhow::Result<Self> {
        sqlx::any::install_default_drivers();
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let database = runtime.block_on(AnyConnection::connect(url)).context("cannot read the bridge's database")?;
        Ok(Self { runtime, database, is_file: url.starts_with("sqlite:") })
    }

    /// How many messages of telemetry there are.
    pub(super) fn count(&mut self) -> anyhow::Result<u64> {
        let count = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM telemetry").fetch_one(&mut self.database);
        Ok(u64::try_from(self.runtime.block_on(count)?)?)
    }

    /// How many of the messages are not there that these devices have sent: in each run those from 1 to a number.
    pub(super) fn lost(&mut self, sent: &BTreeMap<(String, u64), u64>) -> anyhow::Result<u64> {
        let counts = "SELECT device, run, count(*) AS n, min(seq) AS least, max(seq) AS most FROM telemetry GROUP BY device, run";
        let mut lost: u64 = sent.values().sum();
        for row in self.runtime.block_on(sqlx::query(counts).fetch_all(&mut self.database))? {
            let key = (row.try_get("device")?, row.try_get::<i64, _>("run")?.cast_unsigned());
            let number = |column: &str| anyhow::Ok(u64::try_from(row.try_get::<i64, _>(column)?)?);
            let (n, least, most) = (number("n")?, number("least")?, number("most")?);
            let last = sent.get(&key).copied().unwrap_or_default();
            // No two rows have one number, so that all are there when there are so many.
            ensure!(least >= 1 && most <= last, "{} has said nothing of what is kept of it: {least} to {most}", key.0);
            lost -= n;
        }
        Ok(lost)
    }

    /// Fails when something is half-written.
    pub(super) fn is_whole(&mut self) -> anyhow::Result<()> {
        if self.is_file {
            let check = sqlx::query_scalar::<_, String>("PRAGMA integrity_check").fetch_one(&mut self.database);
            let found = self.runtime.block_on(check)?;
            ensure!(found == "ok", "the database is damaged: {found}");
        }
        let records = sqlx::query("SELECT body FROM record").fetch_all(&mut self.database);
        for row in self.runtime.block_on(records)? {
            let body: &str = row.try_get("body")?;
            serde_json::from_str::<Record>(body).with_context(|| format!("no record: {body}"))?;
        }
        let mut last = (String::new(), 0_i64, 0_i64);
        loop {
            let page = sqlx::query(PAGE).bind(&last.0).bind(last.1).bind(last.2).fetch_all(&mut self.database);
            let page = self.runtime.block_on(page)?;
            for row in &page {
                let said: Telemetry = protocol::decode_cbor(row.try_get::<&[u8], _>("body")?)?;
                last = (row.try_get("device")?, row.try_get("run")?, row.try_get("seq")?);
                let same = said.device.as_str() == last.0;
                let same = same && (said.run, said.seq) == (last.1.cast_unsigned(), last.2.cast_unsigned());
                ensure!(same, "message {} of {} is another than its row says", last.2, last.0);
            }
            if page.is_empty() {
                return Ok(());
            }
        }
    }
}
