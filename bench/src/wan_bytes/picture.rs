//! The picture: a row for each pair, bytes on a logarithmic scale, a mark for each way of moving them.

use std::fmt::Write as _;

use super::Row;
use super::peers::Peer;
use super::report::ours;

const WIDTH: f64 = 960.0;
const LEFT: f64 = 190.0;
const RIGHT: f64 = 110.0;
const TOP: f64 = 96.0;
const ROW: f64 = 30.0;
const BOTTOM: f64 = 44.0;

/// Colours of Okabe and Ito, which people with any colour vision can tell apart; shapes differ as well.
const OURS: &str = "#D55E00";

fn look(peer: Peer) -> (&'static str, &'static str) {
    match peer {
        Peer::OsTree => ("square", "#0072B2"),
        Peer::HDiffPatch => ("circle", "#009E73"),
        Peer::PatchFrom => ("triangle", "#CC79A7"),
        Peer::Bsdiff => ("cross", "#7A5C00"),
        Peer::Casync => ("ring", "#555555"),
        Peer::Zstd => ("bar", "#999999"),
    }
}

/// The picture as SVG.
pub(super) fn draw(rows: &[Row]) -> String {
    let values = rows.iter().flat_map(|row| row.peers.iter().flatten().map(|m| m.bytes).chain(ours(row)));
    let (low, high) = values.fold((u64::MAX, 1), |(low, high), bytes| (low.min(bytes), high.max(bytes)));
    let low = (low.max(1) as f64).log10().floor();
    let high = (high as f64).log10().ceil().max(low + 1.0);
    let x = |bytes: u64| LEFT + ((bytes.max(1) as f64).log10() - low) / (high - low) * (WIDTH - LEFT - RIGHT);
    let height = TOP + ROW * rows.len() as f64 + BOTTOM;
    let floor = height - BOTTOM;

    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
         height=\"{height}\" role=\"img\" aria-labelledby=\"title desc\" \
         font-family=\"system-ui, 'DejaVu Sans', sans-serif\" font-size=\"13\">\n\
         <title id=\"title\">Bytes for each update, ours beside five peers</title>\n\
         <desc id=\"desc\">{}</desc>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
         <text x=\"16\" y=\"28\" font-size=\"17\" font-weight=\"600\" fill=\"#1a1a1a\">Bytes over the link for an \
         update of what is held already</text>\n",
        escape(&description(rows)),
    );
    legend(&mut svg);
    let margin = WIDTH - 20.0;
    let _ = writeln!(
        svg,
        "<text x=\"{margin}\" y=\"{}\" text-anchor=\"end\" fill=\"#444444\">ours/best</text>",
        TOP - 7.0
    );

    // The scale: a line at each power of ten.
    let mut power = low;
    while power <= high {
        let at = LEFT + (power - low) / (high - low) * (WIDTH - LEFT - RIGHT);
        let _ = writeln!(
            svg,
            "<path d=\"M{at:.1} {TOP}V{floor:.1}\" stroke=\"#dcdcdc\"/>\
             <text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\" fill=\"#444444\">{}</text>",
            floor + 22.0,
            unit(power),
        );
        power += 1.0;
    }
    for (number, row) in rows.iter().enumerate() {
        let y = TOP + ROW * (number as f64 + 0.5);
        if number % 2 == 0 {
            let _ = writeln!(
                svg,
                "<rect x=\"8\" y=\"{:.1}\" width=\"{}\" height=\"{ROW}\" fill=\"#000000\" fill-opacity=\"0.035\"/>",
                y - ROW / 2.0,
                WIDTH - 16.0
            );
        }
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"#1a1a1a\">{}</text>",
            LEFT - 14.0,
            y + 4.5,
            escape(&row.pair.name)
        );
        // From ours to the best peer: how much is saved.
        let best = row.best();
        if let (Some(ours), Some((_, best))) = (ours(row), best) {
            let _ = writeln!(
                svg,
                "<path d=\"M{:.1} {y:.1}H{:.1}\" stroke=\"{OURS}\" stroke-width=\"2.5\" stroke-opacity=\"0.45\"/>\
                 <text x=\"{margin}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"#1a1a1a\">{:.2}</text>",
                x(ours),
                x(best.bytes),
                y + 4.5,
                ours as f64 / best.bytes as f64
            );
        }
        // The best one above the others, where they are close.
        let others = Peer::ALL.into_iter().filter(|peer| best.is_none_or(|(best, _)| best != *peer));
        for peer in others.chain(best.map(|(peer, _)| peer)) {
            if let Some(measured) = row.peer(peer) {
                let (shape, colour) = look(peer);
                mark(&mut svg, shape, colour, x(measured.bytes), y);
            }
        }
        if let Some(bytes) = ours(row) {
            mark(&mut svg, "diamond", OURS, x(bytes), y);
        }
    }
    svg.push_str("</svg>\n");
    svg
}

fn legend(svg: &mut String) {
    let mut at = 24.0;
    let mut entry = |shape: &str, colour: &str, text: &str| {
        mark(svg, shape, colour, at, 60.0);
        let _ = writeln!(svg, "<text x=\"{}\" y=\"64.5\" fill=\"#1a1a1a\">{text}</text>", at + 13.0);
        at += 40.0 + text.chars().count() as f64 * 7.6;
    };
    entry("diamond", OURS, "ours");
    for peer in Peer::UPDATES {
        let (shape, colour) = look(peer);
        entry(shape, colour, peer.name());
    }
    let (shape, colour) = look(Peer::Zstd);
    entry(shape, colour, "the whole release, zstd -19");
}

fn mark(svg: &mut String, shape: &str, colour: &str, x: f64, y: f64) {
    let path = |d: String| format!("<path d=\"{d}\" fill=\"{colour}\" stroke=\"#ffffff\"/>");
    let mark = match shape {
        "diamond" => path(format!(
            "M{:.1} {y:.1}L{x:.1} {:.1}L{:.1} {y:.1}L{x:.1} {:.1}Z",
            x - 8.0,
            y - 8.0,
            x + 8.0,
            y + 8.0
        )),
        "square" => path(format!("M{:.1} {:.1}h10v10h-10Z", x - 5.0, y - 5.0)),
        "triangle" => path(format!("M{x:.1} {:.1}l6.5 11h-13Z", y - 6.5)),
        "circle" => {
            format!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"5.5\" fill=\"{colour}\" stroke=\"#ffffff\"/>")
        }
        "ring" => format!(
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4.5\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>"
        ),
        "cross" => format!(
            "<path d=\"M{:.1} {:.1}l9 9m0 -9l-9 9\" stroke=\"{colour}\" stroke-width=\"2.5\"/>",
            x - 4.5,
            y - 4.5
        ),
        _ => format!("<path d=\"M{x:.1} {:.1}v14\" stroke=\"{colour}\" stroke-width=\"3\"/>", y - 7.0),
    };
    svg.push_str(&mark);
    svg.push('\n');
}

/// What the picture shows, in words.
fn description(rows: &[Row]) -> String {
    let mut text =
        "A row for each application, bytes on a logarithmic scale; further left is better.".to_owned();
    for row in rows {
        let _ = write!(text, " {}:", row.pair.label());
        if let Some(bytes) = ours(row) {
            let _ = write!(text, " ours {},", mirabelle_terminal::bytes(bytes));
        }
        let peers = Peer::UPDATES.iter().chain([&Peer::Zstd]).filter_map(|peer| {
            let bytes = row.peer(*peer)?.bytes;
            Some(format!(" {} {}", peer.name(), mirabelle_terminal::bytes(bytes)))
        });
        let _ = write!(text, "{}.", peers.collect::<Vec<_>>().join(","));
    }
    text
}

/// `100 kB`
fn unit(power: f64) -> String {
    let units = ["B", "kB", "MB", "GB", "TB"];
    let (thousands, rest) = ((power / 3.0).floor(), power % 3.0);
    let unit =
        units.iter().enumerate().find(|(number, _)| *number as f64 >= thousands).map_or("", |(_, unit)| unit);
    format!("{:.0} {unit}", 10_f64.powf(rest))
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
