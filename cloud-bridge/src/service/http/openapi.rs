//! The OpenAPI document: what each route says of itself, and what every route has in common.

use super::once::{IDEMPOTENCY_KEY, ROUTES};
use super::problem::{PROBLEM_JSON, Problem};
use utoipa::OpenApi;
use utoipa::openapi::path::{Operation, Parameter, ParameterIn, PathItem};
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{Components, Content, Ref, RefOr, Required, Response};

/// How people are known.
const TOKEN: &str = "token";
/// What may happen to any request of a person, whatever it asks.
const REFUSALS: [(&str, &str); 7] = [
    ("400", "the request is not understood"),
    ("401", "no token, or one that lets nobody in"),
    ("403", "the token's role or scope does not reach so far"),
    ("413", "the body is too long"),
    ("415", "the body is of another type"),
    ("429", "too many requests of this person in the last minute"),
    ("500", "the bridge failed; its log says why"),
];

#[derive(OpenApi)]
#[openapi(
    components(schemas(Problem)),
    info(
        title = "Petrel bridge",
        description = "Devices, releases and rollouts of one fleet. What people ask carries `Authorization: Bearer <token>`; what devices ask (enrol, renew, re-enrol, content) proves by itself who sends it. Errors are RFC 9457 problem details with a stable `code`."
    )
)]
pub(super) struct Document;

/// What the routes say, with what they have in common.
pub(super) fn describe(
    people: utoipa::openapi::OpenApi,
    devices: utoipa::openapi::OpenApi,
) -> utoipa::openapi::OpenApi {
    let mut document = people;
    let scheme = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
    document.components.get_or_insert_with(Components::new).add_security_scheme(TOKEN, scheme);
    for (route, path) in &mut document.paths.paths {
        if let Some(get) = &mut path.get {
            let same = Response::new("what `If-None-Match` names is what there is: the tag is in `ETag`");
            get.responses.responses.insert("304".into(), RefOr::T(same));
        }
        if let Some(post) = path.post.as_mut().filter(|_| ROUTES.contains(&route.as_str())) {
            post.parameters.get_or_insert_default().push(key().into());
        }
    }
    for operation in document.paths.paths.values_mut().flat_map(operations) {
        operation.security = Some(vec![SecurityRequirement::new(TOKEN, [""; 0])]);
        for (status, what) in REFUSALS {
            let responses = &mut operation.responses.responses;
            responses.entry(status.into()).or_insert_with(|| RefOr::T(Response::new(what)));
        }
    }
    document.merge(devices);
    let operations = document.paths.paths.values_mut().flat_map(operations);
    for (status, response) in operations.flat_map(|operation| operation.responses.responses.iter_mut()) {
        if let RefOr::T(response) = response
            && status.starts_with(['4', '5'])
        {
            let problem = Content::new(Some(Ref::from_schema_name("Problem")));
            response.content = [(PROBLEM_JSON.to_owned(), RefOr::T(problem))].into_iter().collect();
            if response.description.is_empty() {
                response.description = "refused: `code` and `detail` say why".into();
            }
        }
    }
    document
}

/// The header of a request that counts once.
fn key() -> Parameter {
    let key = Parameter::builder().name(IDEMPOTENCY_KEY).parameter_in(ParameterIn::Header).required(Required::False);
    let what = "1 to 128 letters, digits and signs: within a day, the same request with the same key begins nothing more, and is answered as it was";
    let schema = ObjectBuilder::new().schema_type(Type::String).min_length(Some(1)).max_length(Some(128));
    key.description(Some(what)).schema(Some(schema.pattern(Some("^[!-~]+$")))).build()
}

fn operations(path: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [&mut path.get, &mut path.put, &mut path.post, &mut path.delete].into_iter().flatten()
}
