//! `benefit`: what all this saved, by college: bytes over the link, hours of computers that were off, days until a release was everywhere.
//!
//! Bytes: every installation that machines reported, as if each had fetched the whole bundle, against what the college's node received over the
//! link since it was set up, everything included. Hours: from a switch-off by the evening to the next start, a day at most.

use std::collections::BTreeMap;

use mirabelle_manifests::{Catalogue, CatalogueEntry, Instant};
use mirabelle_terminal::{Failure, OrFail, Table, bytes};
use serde::Serialize;

use super::Context;
use crate::cli::Benefit;
use crate::fleet::{Daily, State};
use crate::review::visible;
use crate::submission::read_catalogue;

const DAY: i64 = 24 * 60 * 60;

/// What was saved.
#[derive(Debug, Default, Serialize)]
struct Saved {
    colleges: Vec<College>,
    in_all: Sums,
    releases: Vec<Arrived>,
    /// Why machines stayed on after their hour, and how often.
    stayed_on: BTreeMap<String, i64>,
}

#[derive(Debug, Serialize)]
struct College {
    college: String,
    #[serde(flatten)]
    sums: Sums,
}

/// Of a college, or of all.
#[derive(Clone, Copy, Debug, Default, Serialize)]
struct Sums {
    installations: i64,
    /// Of releases that are in the catalogue no more: counted in no bytes.
    installations_unknown: i64,
    /// Bytes that came over the link.
    wan_bytes: u64,
    /// Bytes of whole bundles, for each installation.
    whole_bytes: u64,
    avoided_bytes: u64,
    evenings_off: i64,
    stayed_on: i64,
    hours_off: f64,
    kwh: f64,
}

/// How a release came to be everywhere.
#[derive(Debug, Serialize)]
struct Arrived {
    release: String,
    approved: Option<Instant>,
    installations: i64,
    /// Days from approval until it had been installed 95 times of a hundred.
    days_to_95_percent: Option<i64>,
}

pub(super) async fn run(context: &Context, arguments: &Benefit) -> Result<(), Failure> {
    let what = || "cannot read the fleet's state".to_owned();
    let repository = context.repository()?;
    let catalogue = read_catalogue(&repository.catalogue()?)?;
    let state = State::open(&arguments.state.fleet, &repository.path("")).await?;
    let since = arguments.since.unwrap_or(Instant::UNIX_EPOCH);
    let daily = state.daily(arguments.college.as_ref(), since).await.or_fail(what)?;
    let machines = state.machines(arguments.college.as_ref()).await.or_fail(what)?;
    let nodes = machines.iter().filter(|machine| machine.name.is_empty());
    let received =
        nodes.map(|node| (node.college.clone(), node.state["received_bytes"].as_u64().unwrap_or(0)));
    let saved = saved(&daily, &received.collect(), &catalogue, arguments.watts);
    context.output.print(&saved, |saved| words(saved, arguments.watts));
    Ok(())
}

fn saved(daily: &[Daily], received: &BTreeMap<String, u64>, catalogue: &Catalogue, watts: u32) -> Saved {
    let mut colleges: BTreeMap<&str, Sums> = BTreeMap::new();
    for (college, bytes) in received {
        colleges.entry(college).or_default().wan_bytes = *bytes;
    }
    let (mut stayed_on, mut arrived) = (BTreeMap::new(), BTreeMap::<&str, BTreeMap<i64, i64>>::new());
    for Daily { college, day, what, name, count } in daily {
        let sums = colleges.entry(college).or_default();
        match what.as_str() {
            "installed" => {
                sums.installations += count;
                *arrived.entry(name).or_default().entry(*day).or_default() += count;
                match entry(catalogue, name) {
                    Some(entry) => {
                        let times = u64::try_from(*count).unwrap_or(0);
                        sums.whole_bytes += entry.listing.download_size.saturating_mul(times);
                    }
                    None => sums.installations_unknown += count,
                }
            }
            "off" => sums.evenings_off += count,
            #[expect(clippy::cast_precision_loss, reason = "seconds of a few thousand machines")]
            "off-seconds" => sums.hours_off += *count as f64 / 3600.0,
            "stayed-on" => {
                sums.stayed_on += count;
                *stayed_on.entry(name.clone()).or_default() += count;
            }
            _ => {}
        }
    }
    let mut saved = Saved { stayed_on, ..Saved::default() };
    for (college, mut sums) in colleges {
        sums.avoided_bytes = sums.whole_bytes.saturating_sub(sums.wan_bytes);
        sums.kwh = sums.hours_off * f64::from(watts) / 1000.0;
        saved.in_all.add(&sums);
        saved.colleges.push(College { college: college.to_owned(), sums });
    }
    saved.releases = arrived.into_iter().map(|(name, days)| arrival(name, &days, catalogue)).collect();
    saved
}

impl Sums {
    fn add(&mut self, other: &Self) {
        self.installations += other.installations;
        self.installations_unknown += other.installations_unknown;
        self.wan_bytes += other.wan_bytes;
        self.whole_bytes += other.whole_bytes;
        self.avoided_bytes += other.avoided_bytes;
        self.evenings_off += other.evenings_off;
        self.stayed_on += other.stayed_on;
        self.hours_off += other.hours_off;
        self.kwh += other.kwh;
    }
}

/// The release of `NAME VERSION`: of several systems the smallest, so that nothing is counted that was not saved.
fn entry<'a>(catalogue: &'a Catalogue, name: &str) -> Option<&'a CatalogueEntry> {
    let is_it = |entry: &&CatalogueEntry| format!("{} {}", entry.listing.name, entry.listing.version) == name;
    catalogue.iter().filter(is_it).min_by_key(|entry| entry.listing.download_size)
}

fn arrival(name: &str, days: &BTreeMap<i64, i64>, catalogue: &Catalogue) -> Arrived {
    let installations: i64 = days.values().sum();
    let mut so_far = 0;
    let there = days.iter().find(|(_, count)| {
        so_far += **count;
        so_far * 100 >= installations * 95
    });
    let approved = entry(catalogue, name).and_then(|entry| entry.approved);
    let begun = approved.map(|approved| approved.as_second().div_euclid(DAY));
    let days_to_95_percent = there.zip(begun).map(|((day, _), begun)| (day - begun).max(0));
    Arrived { release: name.to_owned(), approved, installations, days_to_95_percent }
}

fn words(saved: &Saved, watts: u32) -> String {
    let mut table = Table::new([
        "college",
        "installed",
        "over the link",
        "as whole bundles",
        "avoided",
        "evenings off",
        "hours off",
        "kWh",
        "stayed on",
    ]);
    let colleges = saved.colleges.iter().map(|one| (one.college.as_str(), &one.sums));
    for (college, sums) in colleges.chain([("in all", &saved.in_all)]) {
        table.row([
            college.to_owned(),
            sums.installations.to_string(),
            bytes(sums.wan_bytes),
            bytes(sums.whole_bytes),
            bytes(sums.avoided_bytes),
            sums.evenings_off.to_string(),
            format!("{:.0}", sums.hours_off),
            format!("{:.1}", sums.kwh),
            sums.stayed_on.to_string(),
        ]);
    }
    let mut lines = vec![format!("kWh: {watts} W for each computer that was off")];
    for arrived in &saved.releases {
        let Arrived { release, installations, days_to_95_percent, .. } = arrived;
        let days = days_to_95_percent
            .map_or(String::new(), |days| format!(", 95 % of them within {days} days of its approval"));
        lines.push(format!("{release}: installed {installations} times{days}"));
    }
    for (why, count) in &saved.stayed_on {
        lines.push(format!("stayed on {count} times: {}", visible(why)));
    }
    format!("{}\n{}", table.render(), lines.join("\n"))
}
