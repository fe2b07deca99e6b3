//! What each route asks of a person: one table, and nothing that is not in it is answered.

use super::problem::Problem;
use axum::http::Method;
use bridge_core::access::{Access, Right};

/// What a route needs.
#[derive(Debug)]
pub(super) struct Needs {
    /// One of these.
    rights: &'static [Right],
    /// Its handler knows of which stream a request is, and asks again.
    by_stream: bool,
}

impl Needs {
    /// Whether somebody may send a request there at all.
    pub(super) fn check(&self, access: &Access) -> Result<(), Problem> {
        let allowed = if self.by_stream { access.may(self.rights) } else { access.allows(self.rights, None) };
        allowed.map_err(|why| Problem::forbidden("forbidden", &why))
    }
}

/// What a route needs; `None` when nobody thought of it.
pub(super) fn needs(method: &Method, route: &str) -> Option<Needs> {
    let any = |rights| Some(Needs { rights, by_stream: false });
    let of_a_stream = |rights| Some(Needs { rights, by_stream: true });
    match (method.as_str(), route.strip_prefix("/api/v1/").unwrap_or(route)) {
        // What models are fed with is more than how the fleet is.
        ("GET" | "HEAD", "sample-requests/{id}/samples") => {
            of_a_stream(&[Right::Publish, Right::Operate, Right::Approve])
        }
        ("GET" | "HEAD", _) => any(&[Right::Read]),
        // It changes nothing but the log.
        ("POST", "rollouts/plan" | "audit/checkpoint") => any(&[Right::Read]),
        ("PUT", "bundles/{digest}") => of_a_stream(&[Right::Publish]),
        ("POST", "documents" | "releases/gc") => any(&[Right::Publish]),
        ("POST", "rollouts") => of_a_stream(&[Right::Operate]),
        ("POST", "sample-requests") => of_a_stream(&[Right::Operate]),
        ("POST", "sample-requests/{id}") => of_a_stream(&[Right::Operate, Right::Approve]),
        ("POST", "rollouts/{id}") => of_a_stream(&[Right::Operate, Right::Approve]),
        ("POST", "fan-outs") => any(&[Right::Operate]),
        ("POST", "drift-alarms/{id}/acknowledge") => any(&[Right::Operate]),
        ("POST", "join-tokens" | "join-tokens/{id}/revoke") => any(&[Right::Operate]),
        (
            "POST",
            "devices/{id}/approve"
            | "devices/{id}/reject"
            | "devices/{id}/labels"
            | "devices/{id}/revoke"
            | "devices/{id}/retire"
            | "devices/{id}/commands",
        ) => any(&[Right::Operate]),
        ("POST", "webhooks/{name}/test" | "webhooks/{name}/retry") => any(&[Right::Operate]),
        ("POST", "people" | "people/{name}/revoke") => any(&[Right::Administer]),
        _ => None,
    }
}
