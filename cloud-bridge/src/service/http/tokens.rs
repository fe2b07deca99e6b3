//! One-time tokens: made for a device by a person, shown once, in a join file.

use super::Doors;
use super::audit::Asked;
use super::problem::Problem;
use super::view::List;
use crate::service::store::Kept;
use anyhow::Context;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use protocol::{BRIDGE_NAME, DeviceId, FleetId, JoinFile, JoinToken, SPEC};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use utoipa::ToSchema;

/// How long a token may wait to be used.
const LONGEST_TTL_S: u64 = 30 * 24 * 3_600;

/// What is asked for.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewToken {
    /// Whom it lets in.
    pub(crate) device: String,
    /// Seconds that it may wait to be used, 60 to 30 days.
    pub(crate) ttl_s: u64,
    /// Whether a person decides again when it was used.
    pub(crate) pending: bool,
}

/// A token without its secret.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct TokenView {
    /// What names it.
    pub(crate) id: String,
    /// Whom it lets in.
    pub(crate) device: String,
    /// Whether a person decides again when it was used.
    pub(crate) pending: bool,
    /// When it ends, in milliseconds since 1970.
    pub(crate) until: u64,
    /// Whether a key has used it.
    pub(crate) used: bool,
}

impl From<Kept> for TokenView {
    fn from(Kept { id, device, pending, until, used }: Kept) -> Self {
        Self { id, device, pending, until, used }
    }
}

/// A new token: the only answer that holds its secret.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct MadeToken {
    /// The token.
    pub(crate) token: TokenView,
    /// What the device is given: the join file.
    #[schema(value_type = Object)]
    pub(crate) join: JoinFile,
}

/// What every join file of this bridge says.
#[derive(Debug)]
pub(crate) struct Invitation {
    /// The fleet.
    pub(crate) fleet: FleetId,
    /// Where devices find the REST API.
    pub(crate) bridge: String,
    /// Where devices find the broker.
    pub(crate) broker: String,
    /// The fleet's authority, PEM.
    pub(crate) ca: PathBuf,
    /// The root of trust.
    pub(crate) root: PathBuf,
}

impl Invitation {
    fn write(&self, device: DeviceId, token: JoinToken) -> anyhow::Result<JoinFile> {
        let read =
            |path: &PathBuf| std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()));
        let (bridge, broker) = (self.bridge.clone(), self.broker.clone());
        let (ca, root) = (read(&self.ca)?, read(&self.root)?);
        Ok(JoinFile { spec: SPEC, fleet: self.fleet.clone(), device, bridge, broker, ca, root, token })
    }
}

/// Make a one-time token for a device; its secret is in this answer and nowhere else
#[utoipa::path(post, path = "/api/v1/join-tokens", request_body = NewToken,
    responses((status = 201, body = MadeToken), (status = 409), (status = 422)))]
pub(super) async fn make(
    State(doors): State<Doors>,
    Extension(asked): Extension<Asked>,
    Json(new): Json<NewToken>,
) -> Result<(StatusCode, Json<MadeToken>), Problem> {
    let device: DeviceId = new.device.parse().map_err(Problem::invalid)?;
    if device.as_str().starts_with(BRIDGE_NAME) {
        return Err(Problem::invalid(format!(
            "names that begin with `{BRIDGE_NAME}` are the bridge's own: choose another"
        )));
    }
    if !(60..=LONGEST_TTL_S).contains(&new.ttl_s) {
        return Err(Problem::invalid("a token waits for a minute at least, and for 30 days at most"));
    }
    let name = device.clone();
    if !doors.driver.look(move |bridge| bridge.is_free(&name)).await? {
        return Err(Problem::taken(&device));
    }
    doors.witness(&asked, "token.new", &device).await?;
    let (token, kept) = doors.store.new_join_token(&device, new.ttl_s * 1_000, new.pending).await?;
    let join = doors.invitation.write(device, token)?;
    Ok((StatusCode::CREATED, Json(MadeToken { token: kept.into(), join })))
}

/// Every token of the last month
#[utoipa::path(get, path = "/api/v1/join-tokens", responses((status = 200, body = List<TokenView>)))]
pub(super) async fn list(State(doors): State<Doors>) -> Result<Json<List<TokenView>>, Problem> {
    let items = doors.store.join_tokens().await?.into_iter().map(TokenView::from).collect();
    Ok(Json(List::of(items)))
}

/// Take a token back
#[utoipa::path(post, path = "/api/v1/join-tokens/{id}/revoke", params(("id" = String, Path)),
    responses((status = 204), (status = 404)))]
pub(super) async fn revoke(
    State(doors): State<Doors>,
    Extension(asked): Extension<Asked>,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    if !doors.store.revoke_join_token(&id).await? {
        return Err(Problem::not_found(format!("there is no token `{id}`")));
    }
    doors.witness(&asked, "token.revoke", &id).await?;
    Ok(StatusCode::NO_CONTENT)
}
