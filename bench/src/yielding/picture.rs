//! The picture: the delay of the call's packets over time, on a logarithmic scale, a line for each way of fetching.

use std::fmt::Write as _;

use super::{Fetching, Measured, Run};

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 24.0;
const TOP: f64 = 84.0;
const BOTTOM: f64 = 52.0;
/// Milliseconds at the bottom and at the top.
const LOW: f64 = 0.1;
const HIGH: f64 = 1000.0;
/// Each point is the longest delay of so many parts of a second.
const POINTS_A_SECOND: f64 = 4.0;

/// Colours of Okabe and Ito, which people with any colour vision can tell apart; dashes differ as well.
fn look(fetching: Fetching) -> (&'static str, &'static str) {
    match fetching {
        Fetching::Idle => ("#0072B2", "2 3"),
        Fetching::Full => ("#999999", "7 3"),
        Fetching::Yielding => ("#D55E00", ""),
    }
}

/// The picture as SVG.
pub(super) fn draw(measured: &Measured) -> String {
    let floor = HEIGHT - BOTTOM;
    let y = |delay: f64| {
        let share = (delay.clamp(LOW, HIGH) / LOW).log10() / (HIGH / LOW).log10();
        floor - share * (floor - TOP)
    };
    let x = |second: f64| LEFT + second / measured.seconds as f64 * (WIDTH - LEFT - RIGHT);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" \
         height=\"{HEIGHT}\" role=\"img\" aria-labelledby=\"title desc\" \
         font-family=\"system-ui, 'DejaVu Sans', sans-serif\" font-size=\"13\">\n\
         <title id=\"title\">The delay of a call's packets while the node fetches</title>\n\
         <desc id=\"desc\">{}</desc>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
         <text x=\"16\" y=\"28\" font-size=\"17\" font-weight=\"600\" fill=\"#1a1a1a\">What a call's packets wait, down \
         an 8 Mbit/s link: the longest of each quarter of a second, in ms</text>\n",
        description(measured)
    );
    let mut at = LEFT;
    for run in measured.beside_call() {
        let (colour, dashes) = look(run.fetching);
        let words = run.fetching.words();
        let _ = writeln!(
            svg,
            "<path d=\"M{at} 55h34\" stroke=\"{colour}\" stroke-width=\"2.5\" stroke-dasharray=\"{dashes}\"/>\
             <text x=\"{}\" y=\"59.5\" fill=\"#1a1a1a\">{words}</text>",
            at + 42.0
        );
        at += 150.0;
    }
    for power in -1..=3 {
        let delay = 10_f64.powi(power);
        let _ = writeln!(
            svg,
            "<path d=\"M{LEFT} {0:.1}H{1:.1}\" stroke=\"#dcdcdc\"/>\
             <text x=\"{2}\" y=\"{3:.1}\" text-anchor=\"end\" fill=\"#444444\">{delay}</text>",
            y(delay),
            WIDTH - RIGHT,
            LEFT - 10.0,
            y(delay) + 4.5
        );
    }
    for tenths in [0.0, 0.25, 0.5, 0.75, 1.0] {
        let second = tenths * measured.seconds as f64;
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\" fill=\"#444444\">{second:.0} s</text>",
            x(second),
            floor + 24.0
        );
    }
    for run in measured.beside_call() {
        let (colour, dashes) = look(run.fetching);
        let mut path = String::new();
        for (second, delay) in points(run) {
            let _ =
                write!(path, "{}{:.1} {:.1}", if path.is_empty() { 'M' } else { 'L' }, x(second), y(delay));
        }
        let _ = writeln!(
            svg,
            "<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.6\" stroke-dasharray=\"{dashes}\"/>"
        );
    }
    svg.push_str("</svg>\n");
    svg
}

/// The longest delay of each part of a second.
fn points(run: &Run) -> Vec<(f64, f64)> {
    let mut points: Vec<(f64, f64)> = Vec::new();
    for (second, delay) in run.down.iter().flat_map(|heard| &heard.delays) {
        let part = (second * POINTS_A_SECOND).floor() / POINTS_A_SECOND;
        match points.last_mut() {
            Some((last, longest)) if *last >= part => *longest = longest.max(*delay),
            _ => points.push((part, *delay)),
        }
    }
    points
}

/// What the picture shows, in words.
fn description(measured: &Measured) -> String {
    let mut text =
        "Delays over time on a logarithmic scale; lower is better. The 95th percentile:".to_owned();
    for run in measured.beside_call() {
        let _ = write!(text, " {} {:.1} ms;", run.fetching.words(), run.p95());
    }
    text
}
