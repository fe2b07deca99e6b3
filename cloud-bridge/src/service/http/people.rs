//! People who may use this API: each holds a token of their own, so that the audit log and approvals know them apart.

use super::Doors;
use super::audit::Asked;
use super::problem::Problem;
use super::view::List;
use crate::service::store::people::{NoChange, Person};
use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use bridge_core::Rejection;
use protocol::StreamName;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What the audit log calls others than people.
const OURS: [&str; 4] = ["bridge", "director", "judge", "nobody"];

/// Somebody who should be let in.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewPerson {
    /// 1 to 63 of a-z 0-9 - _ .
    pub(crate) name: String,
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
    /// When their token was made, milliseconds since 1970.
    pub(crate) created: u64,
}

impl From<Person> for PersonView {
    fn from(person: Person) -> Self {
        Self { name: person.name, created: person.created }
    }
}

/// Make a token for somebody
#[utoipa::path(post, path = "/api/v1/people", request_body = NewPerson,
    responses((status = 201, body = MadePerson), (status = 401, body = Problem), (status = 409, body = Problem), (status = 422, body = Problem)))]
pub(super) async fn make(
    State(doors): State<Doors>,
    Extension(asked): Extension<Asked>,
    body: Result<Json<NewPerson>, JsonRejection>,
) -> Result<(StatusCode, Json<MadePerson>), Problem> {
    let Json(new) = body.map_err(|e| Problem::invalid(e.body_text()))?;
    let name: StreamName = new.name.parse().map_err(Problem::invalid)?;
    if OURS.contains(&name.as_str()) {
        return Err(Problem::invalid(format!("`{name}` is a name of the audit log's own: choose another")));
    }
    if doors.store.people().await?.iter().any(|person| person.name == name.as_str()) {
        return Err(refused(NoChange::Taken, name.as_str()));
    }
    doors.witness(&asked, "person.new", &name).await?;
    let token = doors.store.let_in(name.as_str()).await?.map_err(|why| refused(why, name.as_str()))?;
    Ok((StatusCode::CREATED, Json(MadePerson { name: name.to_string(), token })))
}

/// Everybody who is let in
#[utoipa::path(get, path = "/api/v1/people", responses((status = 200, body = List<PersonView>), (status = 401, body = Problem)))]
pub(super) async fn list(State(doors): State<Doors>) -> Result<Json<List<PersonView>>, Problem> {
    Ok(Json(List { items: doors.store.people().await?.into_iter().map(PersonView::from).collect() }))
}

/// Take somebody's token back
#[utoipa::path(post, path = "/api/v1/people/{name}/revoke", params(("name" = String, Path)),
    responses((status = 204), (status = 401, body = Problem), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(super) async fn revoke(
    State(doors): State<Doors>,
    Extension(asked): Extension<Asked>,
    Path(name): Path<String>,
) -> Result<StatusCode, Problem> {
    let people = doors.store.people().await?;
    if !people.iter().any(|person| person.name == name) {
        return Err(refused(NoChange::Unknown, &name));
    }
    if people.len() == 1 {
        return Err(refused(NoChange::Last, &name));
    }
    doors.witness(&asked, "person.revoke", &name).await?;
    doors.store.shut_out(&name).await?.map_err(|why| refused(why, &name))?;
    Ok(StatusCode::NO_CONTENT)
}

fn refused(why: NoChange, name: &str) -> Problem {
    match why {
        NoChange::Taken => Problem::from(Rejection::Conflict(format!(
            "`{name}` holds a token already: revoke it first, or choose another name"
        ))),
        NoChange::Unknown => Problem::not_found(format!("nobody is called `{name}`")),
        NoChange::Last => Problem::from(Rejection::Conflict(format!(
            "`{name}` is the last who is let in: let somebody else in first"
        ))),
    }
}
