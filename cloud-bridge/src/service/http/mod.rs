//! REST under `/api/v1`: the one door for people's commands, and its OpenAPI document.
//!
//! Decides how requests are admitted and answered. What they mean is decided by the core.

mod access;
pub(crate) mod audit;
mod bundles;
pub(crate) mod commands;
mod content;
mod devices;
mod documents;
mod drift;
mod enrol;
mod etag;
pub(crate) mod fan_outs;
mod limiter;
mod metrics;
mod once;
mod openapi;
pub(crate) mod people;
mod problem;
pub(crate) mod rollouts;
pub(crate) mod samples;
mod status;
pub(crate) mod tokens;
pub(crate) mod view;
pub(crate) mod webhooks;

use super::config::{BridgeConfig, Webhook};
use super::driver::Driver;
use super::expiry::Ends;
use super::library::Library;
use super::pen::Pen;
use super::store::Store;
use super::tally::Tally;
use super::tls;
use crate::certificates::Issuer;
use crate::fault::Fault;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware;
use axum::routing::get;
use axum_server::Handle;
use axum_server::tls_rustls::RustlsConfig;
use content::Shares;
use limiter::{Limiter, Turns};
use problem::Problem;
use protocol::{CONTENT_PATH, MAX_ENROL_BYTES};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;
use tokens::Invitation;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The most bytes of a request that is not a bundle.
const MAX_BODY_BYTES: usize = 256 * 1024;
/// How long requests under way may take when the bridge stops.
const GRACE: Duration = Duration::from_secs(3);

/// What the handlers work with.
#[derive(Clone)]
pub(crate) struct Doors {
    /// The core.
    pub(crate) driver: Driver,
    /// The bundles.
    pub(crate) library: Arc<Library>,
    /// Tokens, telemetry and the audit log.
    pub(crate) store: Store,
    /// Signs checkpoints of the audit log.
    pub(crate) pen: Arc<Pen>,
    /// How many lines of the audit log strangers may cause.
    pub(crate) strangers: audit::Strangers,
    /// Signs devices' certificates.
    pub(crate) issuer: Arc<Issuer>,
    /// What join files say.
    pub(crate) invitation: Arc<Invitation>,
    /// Who is told of events.
    pub(crate) webhooks: Arc<[Webhook]>,
    /// When the bridge's certificates end.
    pub(crate) ends: Arc<Ends>,
    /// What was said and heard.
    pub(crate) tally: Arc<Tally>,
    /// Whether there is a connection to the broker.
    pub(crate) connection: watch::Receiver<Option<bool>>,
    /// How often strangers may ask for a certificate.
    limiter: Arc<Limiter>,
    /// How often they may ask for a bundle in vain.
    fetchers: Arc<Limiter>,
    /// Whether it was ready when somebody asked last.
    readiness: status::Readiness,
    /// How often people may ask.
    turns: Arc<Turns>,
    /// How often devices may ask for a bundle.
    shares: Arc<Shares>,
}

impl Doors {
    /// With everything behind them.
    pub(crate) fn new(
        driver: Driver,
        library: Arc<Library>,
        store: Store,
        pen: Arc<Pen>,
        issuer: Arc<Issuer>,
        invitation: Invitation,
        (tally, connection): (Arc<Tally>, watch::Receiver<Option<bool>>),
    ) -> Self {
        let invitation = Arc::new(invitation);
        let (limiter, fetchers) = (Arc::new(Limiter::new(limiter::REQUESTS)), Arc::new(Limiter::new(u32::MAX)));
        let shares = Arc::new(Shares::new());
        Self {
            driver,
            library,
            store,
            pen,
            strangers: Arc::default(),
            issuer,
            invitation,
            webhooks: Arc::default(),
            ends: Arc::default(),
            tally,
            connection,
            limiter,
            fetchers,
            readiness: Arc::default(),
            turns: Arc::new(Turns::new()),
            shares,
        }
    }

    /// And these are told of events.
    pub(crate) fn telling(self, webhooks: &[Webhook]) -> Self {
        Self { webhooks: webhooks.into(), ..self }
    }

    /// And this is known of its certificates.
    pub(crate) fn ending(self, ends: Arc<Ends>) -> Self {
        Self { ends, ..self }
    }
}

/// The running API.
pub(crate) struct Serving {
    handle: Handle<SocketAddr>,
    task: JoinHandle<std::io::Result<()>>,
}

impl Serving {
    /// Ends it, after requests under way were answered.
    pub(crate) async fn stop(self) {
        self.handle.graceful_shutdown(Some(GRACE));
        // A server that failed meanwhile is stopped as well.
        let _ = self.task.await;
    }
}

#[derive(OpenApi)]
#[openapi(paths(content::content))]
struct Content;

/// What devices ask: each request proves by itself who sends it.
fn open_routes() -> (Router<Doors>, utoipa::openapi::OpenApi) {
    let routes = OpenApiRouter::new().routes(routes!(enrol::enrol));
    let (routes, mut document) =
        routes.routes(routes!(enrol::renew)).routes(routes!(enrol::re_enrol)).split_for_parts();
    // A file's name may have slashes, which OpenAPI has no word for.
    document.merge(Content::openapi());
    (routes.route(&format!("{CONTENT_PATH}/{{statement}}/{{*file}}"), get(content::content)), document)
}

/// What people ask, and the document that describes every route.
fn routes() -> (Router<Doors>, utoipa::openapi::OpenApi) {
    OpenApiRouter::with_openapi(openapi::Document::openapi())
        .routes(routes!(status::status))
        .routes(routes!(metrics::metrics))
        .routes(routes!(devices::list))
        .routes(routes!(devices::show))
        .routes(routes!(devices::approve))
        .routes(routes!(devices::reject))
        .routes(routes!(devices::revoke))
        .routes(routes!(devices::retire))
        .routes(routes!(devices::label))
        .routes(routes!(devices::telemetry))
        .routes(routes!(drift::show))
        .routes(routes!(drift::alarms))
        .routes(routes!(drift::acknowledge))
        .routes(routes!(commands::list, commands::give))
        .routes(routes!(commands::show))
        .routes(routes!(fan_outs::list, fan_outs::give))
        .routes(routes!(fan_outs::show))
        .routes(routes!(fan_outs::commands))
        .routes(routes!(documents::list, documents::publish))
        .routes(routes!(people::list, people::make))
        .routes(routes!(people::revoke))
        .routes(routes!(tokens::list, tokens::make))
        .routes(routes!(tokens::revoke))
        .routes(routes!(bundles::list))
        .routes(routes!(bundles::push))
        .routes(routes!(bundles::stock, bundles::clear_stock))
        .routes(routes!(rollouts::list))
        .routes(routes!(rollouts::show))
        .routes(routes!(rollouts::start))
        .routes(routes!(rollouts::plan))
        .routes(routes!(rollouts::turn))
        .routes(routes!(samples::list, samples::ask))
        .routes(routes!(samples::show, samples::turn))
        .routes(routes!(samples::given))
        .routes(routes!(webhooks::list))
        .routes(routes!(webhooks::notices))
        .routes(routes!(webhooks::test))
        .routes(routes!(webhooks::retry))
        .routes(routes!(audit::list))
        .routes(routes!(audit::checkpoint))
        .split_for_parts()
}

/// Takes the address.
///
/// # Errors
/// When it is not free.
pub(crate) fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let unusable = |e: std::io::Error| {
        Fault::new(format!("the REST API cannot listen on {address}"))
            .because(e)
            .remedy("is another bridge running? Set `listen` to a free port")
    };
    let listener = TcpListener::bind(address).map_err(unusable)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Starts the API; returns where it listens.
pub(crate) async fn start(
    config: &BridgeConfig,
    listener: TcpListener,
    doors: Doors,
) -> anyhow::Result<(SocketAddr, Serving)> {
    let (api, people) = routes();
    let (open, devices) = open_routes();
    let document = openapi::describe(people, devices).to_pretty_json()?;
    let open = open.layer(DefaultBodyLimit::max(MAX_ENROL_BYTES));
    let guarded = api
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .route_layer(middleware::from_fn_with_state(doors.clone(), audit::guard));
    let app = guarded
        .merge(open)
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(status::ready))
        .route(
            "/api/v1/openapi.json",
            get(async || ([(axum::http::header::CONTENT_TYPE, "application/json")], document)),
        )
        .fallback(async || Problem::not_found("no such route: see /api/v1/openapi.json".into()))
        .layer(middleware::map_response(problem::in_words))
        .with_state(doors);

    let address = listener.local_addr()?;
    let tls = RustlsConfig::from_config(tls::server(config)?);
    let handle = Handle::new();
    let server = axum_server::from_tcp_rustls(listener, tls)?.handle(handle.clone());
    let task = tokio::spawn(server.serve(app.into_make_service_with_connect_info::<SocketAddr>()));
    Ok((address, Serving { handle, task }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_of_people_says_what_it_needs() {
        let document = serde_json::to_value(routes().1).unwrap();
        for (path, methods) in document["paths"].as_object().unwrap() {
            for method in methods.as_object().unwrap().keys() {
                let method = method.to_uppercase().parse().unwrap();
                assert!(access::needs(&method, path).is_some(), "{method} {path}");
            }
        }
    }

    #[test]
    fn the_document_describes_every_route() {
        let document = openapi::describe(routes().1, open_routes().1);
        let paths: Vec<&str> = document.paths.paths.keys().map(String::as_str).collect();
        for path in [
            protocol::ENROL_PATH,
            protocol::RENEW_PATH,
            protocol::RETURN_PATH,
            "/api/v1/content/{statement}/{file}",
            "/api/v1/devices",
            "/api/v1/rollouts/{id}",
            "/api/v1/bundles/{digest}",
            "/api/v1/status",
            "/metrics",
        ] {
            assert!(paths.contains(&path), "{path} is not in {paths:?}");
        }
    }
}
