//! Inputs that devices gave for a request that somebody approved.
//!
//! They go by themselves after `answer_days`.

use super::Store;
use bridge_core::UnixMillis;
use protocol::{DeviceId, Sample};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};

/// What a device gave.
#[derive(Debug)]
pub(crate) struct Given {
    /// Who.
    pub(crate) device: DeviceId,
    /// When land heard it.
    pub(crate) at: UnixMillis,
    /// What.
    pub(crate) samples: Vec<Sample>,
}

/// Keeps what a device gave for a request; what came first stays.
pub(super) async fn keep(
    connection: &mut AnyConnection,
    request: u64,
    device: &DeviceId,
    samples: &[Sample],
    now: UnixMillis,
) -> anyhow::Result<()> {
    sqlx::query("INSERT INTO sample (request, device, at, body) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING")
        .bind(i64::try_from(request)?)
        .bind(device.as_str())
        .bind(i64::try_from(now)?)
        .bind(serde_json::to_string(samples)?)
        .execute(connection)
        .await?;
    Ok(())
}

impl Store {
    /// What came for a request, by device.
    pub(crate) async fn samples(&self, request: u64) -> anyhow::Result<Vec<Given>> {
        let rows = sqlx::query("SELECT device, at, body FROM sample WHERE request = $1 ORDER BY device")
            .bind(i64::try_from(request)?)
            .fetch_all(&self.readers)
            .await?;
        let parse = |row: &AnyRow| -> anyhow::Result<Given> {
            let device: &str = row.try_get("device")?;
            Ok(Given {
                device: device.parse()?,
                at: u64::try_from(row.try_get::<i64, _>("at")?)?,
                samples: serde_json::from_str(row.try_get("body")?)?,
            })
        };
        rows.iter().map(parse).collect()
    }
}
