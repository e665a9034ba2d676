//! `/metrics`: what the node counts, in the text format of Prometheus (`OpenMetrics` 1.0).
//!
//! Every figure is about the node and its college's machines in all; none is about a person or a single machine.

use std::sync::Arc;

use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use mirabelle_manifests::Instant;
use mirabelle_transfer::serve::{Body, body, problem};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::Node;
use crate::mirror::{Step, read_plan};

type Labels = Vec<(&'static str, String)>;

/// Figures of one moment, under their names.
struct Figures(Registry);

impl Figures {
    fn put(&mut self, name: &str, help: &str, figure: u64) {
        self.each(name, help, [(Vec::new(), figure)]);
    }

    fn each(&mut self, name: &str, help: &str, figures: impl IntoIterator<Item = (Labels, u64)>) {
        let family = Family::<Labels, Gauge>::default();
        for (labels, figure) in figures {
            family.get_or_create(&labels).set(i64::try_from(figure).unwrap_or(i64::MAX));
        }
        self.0.register(name, help, family);
    }
}

pub(super) async fn answer(node: &Arc<Node>) -> Response<Body> {
    let writing = {
        let node = node.clone();
        tokio::task::spawn_blocking(move || text(&node, Instant::now()))
    };
    match writing.await.unwrap_or(Err(std::fmt::Error)) {
        Ok(text) => {
            let mut response = Response::new(body(text));
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
            response
        }
        Err(error) => {
            tracing::error!(%error, "the metrics could not be written");
            problem(StatusCode::INTERNAL_SERVER_ERROR, "the metrics could not be written")
        }
    }
}

fn text(node: &Node, now: Instant) -> Result<String, std::fmt::Error> {
    let mut figures = Figures(Registry::with_prefix("mirabelle_node"));
    let state = node.site.state();
    let seconds = |since: Option<Instant>| {
        since.map_or(0, |since| u64::try_from(now.duration_since(since).as_secs()).unwrap_or(0))
    };
    figures.put("snapshot", "Version of the snapshot that is served", state.snapshot);
    figures.put("releases", "Releases that are held for the college", state.releases.len() as u64);
    let held = state.releases.iter().map(|held| held.bytes).sum();
    figures.put("held_bytes", "Plain bytes of what is held for the college", held);
    figures.put("refreshed_seconds", "Seconds since an upstream was understood", seconds(state.refreshed));
    figures.put("stale", "1 when what is served is no longer fresh", state.is_stale(now).into());
    let failing = state.last_failure.is_some().into();
    figures.put("sync_failing", "1 when the last sync failed", failing);
    figures.put(
        "received_bytes",
        "Bytes received from upstreams since the node was set up",
        state.received_bytes,
    );

    let tasks = read_plan(&node.site.path("plan.json"));
    let steps = [
        ("waiting", Step::Waiting),
        ("under-way", Step::UnderWay),
        ("failed", Step::Failed),
        ("no-room", Step::NoRoom),
    ];
    let by_step = steps.map(|(name, step)| {
        (vec![("state", name.to_owned())], tasks.iter().filter(|task| task.state == step).count() as u64)
    });
    figures.each("planned_releases", "Releases that are still to come", by_step);
    figures.put("on_demand", "Transfers because somebody waits", node.on_demand.under_way() as u64);

    let raised = node.alarms.raised();
    let alarms = raised.into_keys().map(|alarm| (vec![("alarm", alarm)], 1));
    figures.each("alarm", "1 for each alarm that is on", alarms);

    let waiting = node.fleet.reports_waiting() as u64;
    figures.put("reports_waiting", "Batches of reports that the origin does not have yet", waiting);
    if let Ok(room) = node.disk.room_lately() {
        figures.put("disk_left_bytes", "Bytes that may still be used", room.left);
        figures.put("disk_capacity_bytes", "Bytes that could be used if nothing were held", room.capacity);
    }
    let link = node.link.report(now);
    figures.put("link_rate_bytes", "Bytes a second from upstreams, of the last seconds", link.rate);
    figures.put("link_spent_bytes", "Bytes that count as spent today", link.spent);
    if let Some(budget) = link.budget {
        figures.put("link_budget_bytes", "Bytes that the day may cost", budget);
    }
    let by_priority =
        link.by_priority.into_iter().map(|(priority, bytes)| (vec![("priority", priority)], bytes));
    figures.each("link_bytes", "Bytes over the link by what they were for", by_priority);

    let served = node.stats.now();
    figures.put("connections", "Connections that are open", served.connections);
    let answered = (1_u64..).zip(served.answered);
    let answered = answered.map(|(class, count)| (vec![("status", format!("{class}xx"))], count));
    figures.each("answered", "Requests that were answered", answered);
    figures.put("sent_bytes", "Bytes that the network took", served.bytes);
    figures.put(
        "slow_closed",
        "Connections closed because nobody took what was asked for",
        served.slow_closed,
    );
    figures.put("refused", "Connections closed because one address had too many", served.refused);
    figures.put("memory_cache_hits", "Files answered from memory", served.cache_hits);
    figures.put("memory_cache_bytes", "Bytes of files in memory", served.cache_bytes);
    let hour = jiff::SignedDuration::from_hours(1);
    figures.put("machines_seen", "Addresses that asked within an hour", node.seen.within(hour, now) as u64);
    let mut text = String::new();
    encode(&mut text, &figures.0)?;
    Ok(text)
}
