//! The link over the day, as a picture: a bar for every five minutes.

use jiff::SignedDuration;
use jiff::tz::TimeZone;
use maud::{Markup, html};
use mirabelle_manifests::Instant;
use mirabelle_transfer::Bucket;

use super::words::Words;

/// Bars of a day.
const BARS: i32 = 288;
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
        let at = bar(last, bucket.from);
        let height = (bucket.bytes.saturating_mul(HEIGHT) / most).max(1);
        (0..BARS).contains(&at).then_some((at, height))
    });
    let peak = format!("{} {}/s", words.most, words.bytes(most / SECONDS.unsigned_abs()));
    html! {
        figure {
            svg.day viewBox="0 0 288 61" preserveAspectRatio="none" role="img"
                aria-label=(format!("{}: {}, {peak}", words.day, words.bytes(sum))) {
                line.ground x1="0" y1="60.5" x2="288" y2="60.5" {}
                @for (at, height) in bars { rect.bar x=(at) y=(HEIGHT - height) width="1" height=(height) {} }
            }
            // Words keep their size whatever the picture's.
            div.hours aria-hidden="true" {
                @for (at, hour) in hours(last, now, zone) {
                    span style=(format!("left: {:.1}%", f64::from(at) / f64::from(BARS) * 100.0)) { (hour) }
                }
            }
            figcaption { (words.day) ": " (words.bytes(sum)) ", " (peak) }
        }
    }
}

/// The bar that a moment is in; outside of the picture, if it is not of this day.
fn bar(last: i64, moment: Instant) -> i32 {
    let back = last - moment.as_second().div_euclid(SECONDS);
    i32::try_from(back).map_or(-1, |back| BARS - 1 - back)
}

/// The hours that are named below the bars, and where.
fn hours(last: i64, now: Instant, zone: &TimeZone) -> Vec<(i32, String)> {
    let mut hours = Vec::new();
    for back in 0..24 {
        let Ok(then) = now.checked_sub(SignedDuration::from_hours(back)) else { continue };
        let hour = then.to_zoned_datetime(zone.clone()).hour();
        if i64::from(hour) % NAMED_EVERY != 0 {
            continue;
        }
        let full = then.to_zoned_datetime(zone.clone()).with().minute(0).second(0).build();
        let Ok(full) = full else { continue };
        let at = bar(last, full.timestamp());
        if (4..BARS - 12).contains(&at) {
            hours.push((at, format!("{hour} h")));
        }
    }
    hours
}
