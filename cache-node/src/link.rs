//! The college's link: what `node.toml` and the deployment say about it, and what the running node keeps of it.
//!
//! ```text
//! <root>/
//!   link-ledger.json   the bytes of each day, written before they are spent (transfer/src/link/budget.rs)
//!   link.json          what the link does, of a few seconds ago; for `mirabelle-node link`
//! ```
//!
//! While the node runs, `node.toml` is looked at every two seconds: what its `[link]` table says is in force from then on. One
//! that cannot be read changes nothing, and is said. The college's time zone and holidays are those of the deployment where
//! the file has none; they are read again after each sync.
//!
//! `link.json` is written without being synced: a power cut may take it, and then nobody is running either.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fs_err as fs;
use jiff::tz::TimeZone;
use mirabelle_content::durable;
use mirabelle_manifests::{Instant, Machine, SiteId, Timetable};
use mirabelle_terminal::{ByteCount, Failure, OrFail};
use mirabelle_transfer::{Limits, Link, LinkReport, Network, kept_network};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::config::{Config, LinkTable};
use crate::site::Site;

/// How often the file is looked at, and what the link does is written.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// It is written at least so often while the node runs.
const WRITE_EVERY: Duration = Duration::from_secs(30);
/// One that is older was left by a node that does not run any more.
const OLD: Duration = Duration::from_secs(75);
/// The most of it.
const MAX_BYTES: u64 = 1 << 20;

/// `link.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Kept {
    /// What the link does.
    #[serde(flatten)]
    pub(crate) report: LinkReport,
    /// The college's time zone, for people.
    pub(crate) time_zone: Option<String>,
    /// Why what `node.toml` says now is not in force, if so.
    pub(crate) refused: Option<String>,
}

impl Kept {
    /// True when the node that wrote this still runs, as far as its age says.
    pub(crate) fn is_of_a_running_node(&self, now: Instant) -> bool {
        // A clock that was set back makes it come from the future: a node that ran a moment ago.
        Duration::try_from(now.duration_since(self.report.at)).is_ok_and(|age| age < OLD)
            || now < self.report.at
    }
}

/// What is in force: what the file says, and of what it does not say, what the deployment does.
pub(crate) fn limits(table: Option<&LinkTable>, hours: Option<&Timetable>) -> Limits {
    let Some(table) = table else { return Limits::default() };
    let deployed = hours.map_or(TimeZone::UTC, |hours| hours.zone().clone());
    let usual = Limits::default();
    Limits {
        zone: table.time_zone.as_ref().map_or(deployed, |zone| zone.0.clone()),
        rules: table.rule.iter().map(crate::config::LinkRule::rule).collect(),
        otherwise: table.otherwise.map_or(usual.otherwise, |rate| rate.0),
        holidays: match &table.holidays {
            Some(holidays) => holidays.clone(),
            None => hours.map_or_else(Vec::new, |hours| hours.holidays().to_vec()),
        },
        daily_budget: table.daily_budget.map(|ByteCount(bytes)| bytes),
        reserve_per_cent: table.reserve_per_cent.map_or(usual.reserve_per_cent, |share| share.0),
        yielding: table
            .r#yield
            .unwrap_or(true)
            .then_some(table.yield_target.map_or(Limits::TARGET, |delay| delay.0)),
    }
}

/// The hours that the deployment gives the college as a whole, as far as the node knows it.
async fn hours(site: &Site, college: &SiteId, now: Instant) -> Option<Timetable> {
    timetable(&kept_network(&site.trust(), now).await.ok()?, college)
}

/// The hours of the college as a whole.
pub(crate) fn timetable(network: &Network, college: &SiteId) -> Option<Timetable> {
    // What is said of rooms and machines is not said of a college's link.
    let machine = Machine {
        college: college.clone(),
        id: "node".parse().ok()?,
        model: None,
        platform: "linux-x86_64".parse().ok()?,
        room: None,
        tags: std::collections::BTreeSet::new(),
    };
    Some(network.deployment.timetable(&machine))
}

/// Opens the link of a node.
pub(crate) async fn open(site: &Site, config: &Config, now: Instant) -> Arc<Link> {
    let hours = hours(site, &config.college, now).await;
    let limits = limits(config.link.as_ref(), hours.as_ref());
    Link::open(&site.path("link-ledger.json"), limits, now)
}

/// What the running node kept of its link, if it ever did.
pub(crate) fn kept(site: &Site) -> Result<Option<Kept>, Failure> {
    let path = site.path("link.json");
    let what = || format!("cannot read `{}`", path.display());
    let bytes = durable::read_if_present(&path, MAX_BYTES).or_fail(what)?;
    // One that is damaged was cut short by a power cut: nobody runs.
    Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
}

/// Follows the configuration and keeps what the link does, until the node stops.
pub(crate) struct Keeper {
    site: Site,
    college: SiteId,
    link: Arc<Link>,
    table: Option<LinkTable>,
    refused: Option<String>,
    time_zone: Option<String>,
    /// When the file, and what the last sync left, were written: in force since.
    seen: [Option<SystemTime>; 2],
    written: Option<(tokio::time::Instant, Kept)>,
}

impl Keeper {
    pub(crate) fn new(site: Site, config: &Config, link: Arc<Link>) -> Self {
        let (college, table) = (config.college.clone(), config.link.clone());
        Self { site, college, link, table, refused: None, time_zone: None, seen: [None, None], written: None }
    }

    pub(crate) async fn keep(mut self, stop: &CancellationToken) {
        loop {
            self.look().await;
            self.write();
            tokio::select! {
                () = stop.cancelled() => return self.leave(),
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    }

    fn written(&self) -> [Option<SystemTime>; 2] {
        let written = |path: PathBuf| fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
        [written(self.site.path("node.toml")), written(self.site.path("state.json"))]
    }

    /// Brings what is in force up to date, if what says so has changed.
    async fn look(&mut self) {
        let written = self.written();
        if self.seen == written {
            return;
        }
        if self.seen[0] != written[0] {
            match Config::link_of(&self.site.path("")) {
                Ok(table) => (self.table, self.refused) = (table, None),
                Err(failure) => {
                    let said = failure.render().trim_end().to_owned();
                    tracing::warn!("the limits of the link stay what they were\n{said}");
                    self.refused = Some(said);
                }
            }
        }
        self.seen = written;
        let hours = hours(&self.site, &self.college, Instant::now()).await;
        let limits = limits(self.table.as_ref(), hours.as_ref());
        self.time_zone = limits.zone.iana_name().map(ToOwned::to_owned);
        self.link.set_limits(limits);
    }

    fn write(&mut self) {
        let report = self.link.report(Instant::now());
        let kept = Kept { report, time_zone: self.time_zone.clone(), refused: self.refused.clone() };
        if let Some((at, before)) = &self.written {
            let same =
                Kept { report: LinkReport { at: before.report.at, ..kept.report.clone() }, ..kept.clone() };
            if same == *before && at.elapsed() < WRITE_EVERY {
                return;
            }
        }
        if let Err(error) = self.put(&kept) {
            tracing::warn!(%error, "what the link does could not be written");
        }
        self.written = Some((tokio::time::Instant::now(), kept));
    }

    fn put(&self, kept: &Kept) -> std::io::Result<()> {
        let (path, new) = (self.site.path("link.json"), self.site.path("link.json.new"));
        fs::write(&new, serde_json::to_vec(kept)?)?;
        fs::rename(new, path)
    }

    /// A node that does not run says nothing about its link.
    fn leave(&self) {
        let _ = durable::remove_file(&self.site.path("link.json"));
    }
}

#[cfg(test)]
mod tests {
    use mirabelle_transfer::Rate;

    use super::*;

    fn table(text: &str) -> LinkTable {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn without_a_table_nothing_is_limited_and_with_one_it_yields() {
        let free = limits(None, None);
        assert!(free.yielding.is_none() && free.daily_budget.is_none() && free.otherwise == Rate::Unlimited);
        assert_eq!(limits(Some(&table("")), None).yielding, Some(Limits::TARGET));
        assert_eq!(limits(Some(&table("yield = false")), None).yielding, None);
    }

    #[test]
    fn what_the_file_does_not_say_the_deployment_does() {
        let hours = mirabelle_manifests::Hours {
            time_zone: Some("Europe/Paris".to_owned()),
            holidays: Some(vec![]),
            ..Default::default()
        };
        let machine = Machine {
            college: "57001".parse().unwrap(),
            id: "node".parse().unwrap(),
            model: None,
            platform: "linux-x86_64".parse().unwrap(),
            room: None,
            tags: std::collections::BTreeSet::new(),
        };
        let timetable = Timetable::of(&[hours], &machine, &mirabelle_manifests::Groups::default());
        let zone =
            |text: &str| limits(Some(&table(text)), Some(&timetable)).zone.iana_name().map(str::to_owned);
        assert_eq!(zone("").as_deref(), Some("Europe/Paris"));
        assert_eq!(zone("time-zone = \"Indian/Reunion\"").as_deref(), Some("Indian/Reunion"));
    }
}
