//! The link over the day, as a picture: a bar for every five minutes.

use jiff::SignedDuration;
use jiff::tz::TimeZone;
use maud::{Markup, html};
use mirabelle_manifests::Instant;
use mirabelle_terminal::bytes;
use mirabelle_transfer::Bucket;

use super::words::Words;

/// Bars of a day.
const BARS: i64 = 288;
/// Seconds of one.
const SECONDS: i64 = 300;
const HEIGHT: u64 = 60;
/// Hours between two that are named.
const NAMED_EVERY: i64 = 4;

/// The last 24 hours.
pub(super) fn day(buckets: &[Bucket], now: Instant, zone: &TimeZone, words: &Words) -> Markup {
    let last = now.as_second().div_euclid(SECONDS);
    let most = buckets.iter().map(|bucket| bucket.bytes).max().unwrap_or(0).max(1);
    let sum: u64 = buckets.iter().map(|bucket| bucket.bytes).sum();
    let bars = buckets.iter().filter_map(|bucket| {
        let at = BARS - 1 - (last - bucket.from.as_second().div_euclid(SECONDS));
        let height = (bucket.bytes.saturating_mul(HEIGHT) / most).max(1);
        (0..BARS).contains(&at).then_some((at, height))
    });
    let peak = format!("{} {}/s", words.most, bytes(most / SECONDS.unsigned_abs()));
    html! {
        figure {
            svg.day viewBox="0 0 288 76" role="img" aria-label=(format!("{}: {}, {peak}", words.day, bytes(sum))) {
                line.ground x1="0" y1="60.5" x2="288" y2="60.5" {}
                @for (at, height) in bars { rect.bar x=(at) y=(HEIGHT - height) width="1" height=(height) {} }
                @for (at, hour) in hours(last, now, zone) { text x=(at) y="73" { (hour) } }
            }
            figcaption { (words.day) ": " (bytes(sum)) ", " (peak) }
        }
    }
}

/// The hours that are named below the bars, and where.
fn hours(last: i64, now: Instant, zone: &TimeZone) -> Vec<(i64, String)> {
    let mut hours = Vec::new();
    for back in 0..24 {
        let Ok(then) = now.checked_sub(SignedDuration::from_hours(back)) else { continue };
        let hour = then.to_zoned_datetime(zone.clone()).hour();
        if i64::from(hour) % NAMED_EVERY != 0 {
            continue;
        }
        let full = then.to_zoned_datetime(zone.clone()).with().minute(0).second(0).build();
        let Ok(full) = full else { continue };
        let at = BARS - 1 - (last - full.timestamp().as_second().div_euclid(SECONDS));
        if (4..BARS - 12).contains(&at) {
            hours.push((at, format!("{hour} h")));
        }
    }
    hours
}
