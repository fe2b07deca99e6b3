//! Traces by OpenTelemetry, for whoever wants to see where the time of a request or of a batch of messages goes.
//!
//! Nothing of it is there unless `--traces` names a collector: then spans go there over OTLP/HTTP, in batches, from a thread of
//! their own. A collector that is away costs spans, and nothing else.

use async_trait::async_trait;
use axum::body::Bytes;
use axum::http::{Request, Response};
use opentelemetry::trace::TracerProvider;
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use std::time::Duration;
use tracing::{Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::registry::LookupSpan;

/// How long the collector may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The most bytes of its answer.
const MAX_ANSWER: u64 = 64 << 10;

/// Sends by the client that webhooks are told with.
#[derive(Debug)]
struct Sender(ureq::Agent);

#[async_trait]
impl HttpClient for Sender {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (parts, body) = request.into_parts();
        // The thread that sends spans has nothing else to do.
        let (parts, mut body) = self.0.run(Request::from_parts(parts, &body[..]))?.into_parts();
        Ok(Response::from_parts(parts, body.with_config().limit(MAX_ANSWER).read_to_vec()?.into()))
    }
}

/// Where spans go; whoever drops it without [`Traces::end`] loses the latest.
pub(crate) struct Traces(SdkTracerProvider);

impl Traces {
    /// To the collector at this URL, such as `http://127.0.0.1:4318/v1/traces`.
    ///
    /// # Errors
    /// When it is no URL.
    pub(crate) fn to(url: &str) -> anyhow::Result<Self> {
        let agent = ureq::Agent::config_builder().timeout_global(Some(PATIENCE)).http_status_as_error(false).build();
        let exporter = SpanExporter::builder().with_http().with_http_client(Sender(agent.into())).with_endpoint(url);
        let resource = Resource::builder().with_service_name("petrel-bridge").build();
        let provider = SdkTracerProvider::builder().with_batch_exporter(exporter.build()?).with_resource(resource);
        Ok(Self(provider.build()))
    }

    /// What takes the spans of this program, down to those of each batch.
    pub(crate) fn layer<S: Subscriber + for<'a> LookupSpan<'a>>(&self) -> impl Layer<S> + use<S> {
        let ours = |of: &Metadata<'_>| of.is_span() && of.target().starts_with("petrel");
        tracing_opentelemetry::layer().with_tracer(self.0.tracer("petrel-bridge")).with_filter(filter_fn(ours))
    }

    /// Sends what has not been sent.
    pub(crate) fn end(self) {
        if let Err(error) = self.0.shutdown() {
            tracing::warn!(%error, "the latest traces were not sent");
        }
    }
}
