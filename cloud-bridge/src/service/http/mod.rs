//! REST under `/api/v1`: the one door for people's commands, and its OpenAPI document.
//!
//! Decides how requests are admitted and answered. What they mean is decided by the core.

pub(crate) mod audit;
mod bundles;
mod devices;
mod documents;
mod problem;
mod rollouts;
mod status;
pub(crate) mod view;

use super::config::BridgeConfig;
use super::driver::Driver;
use super::library::Library;
use super::pen::Pen;
use super::store::Store;
use crate::fault::Fault;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware;
use axum::routing::get;
use axum_server::Handle;
use axum_server::tls_rustls::RustlsConfig;
use problem::Problem;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The most bytes of a request that is not a bundle.
const MAX_BODY_BYTES: usize = 256 * 1024;
/// How long requests under way may take when the bridge stops.
const GRACE: Duration = Duration::from_secs(3);

/// What the handlers work with.
#[derive(Debug, Clone)]
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
#[openapi(info(
    title = "Petrel bridge",
    description = "Devices, releases and rollouts of one fleet. Every request but `/healthz` and this document carries `Authorization: Bearer <token>`."
))]
struct Document;

/// Every route and the document that describes them.
fn routes() -> (Router<Doors>, utoipa::openapi::OpenApi) {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(status::status))
        .routes(routes!(devices::list))
        .routes(routes!(devices::show))
        .routes(routes!(devices::approve))
        .routes(routes!(devices::reject))
        .routes(routes!(devices::telemetry))
        .routes(routes!(documents::list, documents::publish))
        .routes(routes!(bundles::list))
        .routes(routes!(bundles::push))
        .routes(routes!(rollouts::list))
        .routes(routes!(rollouts::show))
        .routes(routes!(rollouts::start))
        .routes(routes!(audit::list))
        .routes(routes!(audit::checkpoint))
        .split_for_parts()
}

/// Starts the API; returns where it listens.
pub(crate) async fn start(config: &BridgeConfig, doors: Doors) -> anyhow::Result<(SocketAddr, Serving)> {
    let (api, document) = routes();
    let document = document.to_pretty_json()?;
    let guarded = api
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .route_layer(middleware::from_fn_with_state(doors.clone(), audit::guard));
    let app = guarded
        .route("/healthz", get(async || "ok\n"))
        .route(
            "/api/v1/openapi.json",
            get(async || ([(axum::http::header::CONTENT_TYPE, "application/json")], document)),
        )
        .fallback(async || Problem::not_found("no such route: see /api/v1/openapi.json".into()))
        .with_state(doors);

    let unusable = |e: std::io::Error| {
        Fault::new(format!("the REST API cannot listen on {}", config.listen))
            .because(e)
            .remedy("is another bridge running? Set `listen` to a free port")
    };
    let listener = TcpListener::bind(config.listen).map_err(unusable)?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let tls = RustlsConfig::from_pem_chain_file(&config.tls_cert, &config.tls_key).await.map_err(|e| {
        Fault::new(format!("cannot use {} with {}", config.tls_cert.display(), config.tls_key.display()))
            .because(e)
            .remedy("give the certificate and key that `petrel root init` wrote")
    })?;
    let handle = Handle::new();
    let server = axum_server::from_tcp_rustls(listener, tls)?.handle(handle.clone());
    let task = tokio::spawn(server.serve(app.into_make_service()));
    Ok((address, Serving { handle, task }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_describes_every_route() {
        let (_, document) = routes();
        let paths: Vec<&str> = document.paths.paths.keys().map(String::as_str).collect();
        for path in ["/api/v1/devices", "/api/v1/rollouts/{id}", "/api/v1/bundles/{digest}", "/api/v1/status"] {
            assert!(paths.contains(&path), "{path} is not in {paths:?}");
        }
    }
}
