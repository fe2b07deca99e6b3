//! People who may use this API: each holds a token of their own, so that the audit log and approvals know them apart.

use super::Doors;
use super::audit::Asked;
use super::problem::Problem;
use super::view::List;
use crate::service::driver::DONE;
use crate::service::store::people::{NoChange, Person};
use crate::service::store::unix_millis;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use bridge_core::Rejection;
use bridge_core::access::{Access, Role};
use protocol::StreamName;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use utoipa::ToSchema;

/// The most streams that one token names.
const MAX_SCOPE: usize = 64;
/// The most days that a token lasts.
const MAX_DAYS: u32 = 3_650;
/// What the audit log calls others than people.
const OURS: [&str; 4] = ["bridge", "director", "judge", "nobody"];

/// Somebody who should be let in.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewPerson {
    /// 1 to 63 of a-z 0-9 - _ .
    pub(crate) name: String,
    /// What for.
    #[schema(value_type = String, pattern = "^(viewer|publisher|operator|approver|admin)$")]
    pub(crate) role: Role,
    /// Streams whose releases and rollouts it holds for, and nothing beside them; none for everything.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) streams: Vec<String>,
    /// Days after which it ends; it does not end without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) days: Option<u32>,
}

/// A new token.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct MadePerson {
    /// Whose.
    pub(crate) name: String,
    /// Its secret, which is in this answer and nowhere else.
    pub(crate) token: String,
}

/// Somebody who is let in.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct PersonView {
    /// Their name.
    pub(crate) name: String,
    /// What for.
    #[schema(value_type = String)]
    pub(crate) role: Role,
    /// Streams for which it holds; none for everything.
    pub(crate) streams: Vec<String>,
    /// When their token was made, milliseconds since 1970.
    pub(crate) created: u64,
    /// When it ends, if ever.
    pub(crate) until: Option<u64>,
}

impl From<Person> for PersonView {
    fn from(Person { name, access }: Person) -> Self {
        let streams = access.streams.iter().map(ToString::to_string).collect();
        Self { name, role: access.role, streams, created: access.since, until: access.until }
    }
}

/// Make a token for somebody
#[utoipa::path(post, path = "/api/v1/people", request_body = NewPerson,
    responses((status = 201, body = MadePerson), (status = 409), (status = 422)))]
pub(super) async fn make(
    State(doors): State<Doors>,
    Extension(asked): Extension<Asked>,
    Json(new): Json<NewPerson>,
) -> Result<(StatusCode, Json<MadePerson>), Problem> {
    let name: StreamName = new.name.parse().map_err(Problem::invalid)?;
    if OURS.contains(&name.as_str()) {
        return Err(Problem::invalid(format!("`{name}` is a name of the audit log's own: choose another")));
    }
    let access = understand(&new)?;
    let deed = asked.deed("person.new", format!("{name} as {} for {}", access.role, access.scope()), DONE);
    let token = doors.store.let_in(name.as_str(), &access, &deed).await?.map_err(|why| refused(why, name.as_str()))?;
    asked.was_told();
    Ok((StatusCode::CREATED, Json(MadePerson { name: name.to_string(), token })))
}

/// Everybody who is let in
#[utoipa::path(get, path = "/api/v1/people", responses((status = 200, body = List<PersonView>)))]
pub(super) async fn list(State(doors): State<Doors>) -> Result<Json<List<PersonView>>, Problem> {
    Ok(Json(List::of(doors.store.people().await?.into_iter().map(PersonView::from).collect())))
}

/// Take somebody's token back
#[utoipa::path(post, path = "/api/v1/people/{name}/revoke", params(("name" = String, Path)),
    responses((status = 204), (status = 404), (status = 409)))]
pub(super) async fn revoke(
    State(doors): State<Doors>,
    Extension(asked): Extension<Asked>,
    Path(name): Path<String>,
) -> Result<StatusCode, Problem> {
    let deed = asked.deed("person.revoke", &name, DONE);
    doors.store.shut_out(&name, &deed).await?.map_err(|why| refused(why, &name))?;
    asked.was_told();
    Ok(StatusCode::NO_CONTENT)
}

/// What was said becomes what is meant.
fn understand(new: &NewPerson) -> Result<Access, Problem> {
    let streams: Result<BTreeSet<StreamName>, _> = new.streams.iter().map(|stream| stream.parse()).collect();
    let streams = streams.map_err(Problem::invalid)?;
    if new.role == Role::Admin && !streams.is_empty() {
        return Err(Problem::invalid(
            "an admin is let in for everything: leave the streams away, or choose another role",
        ));
    }
    if streams.len() > MAX_SCOPE {
        return Err(Problem::invalid(format!("at most {MAX_SCOPE} streams can be named")));
    }
    let since = unix_millis();
    let until = match new.days {
        Some(days @ 1..=MAX_DAYS) => Some(since + u64::from(days) * 24 * 3_600_000),
        Some(_) => return Err(Problem::invalid(format!("a token lasts 1 to {MAX_DAYS} days, or until it is revoked"))),
        None => None,
    };
    Ok(Access { role: new.role, streams, since, until })
}

fn refused(why: NoChange, name: &str) -> Problem {
    match why {
        NoChange::Taken => Problem::from(Rejection::Conflict(format!(
            "`{name}` holds a token already: revoke it first, or choose another name"
        ))),
        NoChange::Unknown => Problem::not_found(format!("nobody is called `{name}`")),
        NoChange::Last => Problem::from(Rejection::Conflict(format!(
            "nobody could let anybody in any more without `{name}`: make another admin first"
        ))),
    }
}
