//! The plot: per figure, how many times as good as each of the others Kinesin is, with its interval.

use plotters::{
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};

use super::{Comparison, Report};
use crate::{BenchError, case::Contender};

const WIDTH: i32 = 960;
/// Where the axis begins and ends.
const LEFT: i32 = 330;
const RIGHT: i32 = WIDTH - 30;
const TOP: i32 = 118;
const ROW: i32 = 26;
/// The axis goes from this much worse to this much better; what lies outside stands at its end.
const FACTOR: f64 = 4.0;
const TICKS: [f64; 9] = [0.25, 0.33, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0];

const fn colour(ours: Contender, theirs: Contender) -> RGBColor {
    // Told apart also by those who see no red or no green: Okabe and Ito, "Color Universal Design" (2008).
    match (ours, theirs) {
        (Contender::Kinesin, Contender::Veth) => RGBColor(230, 159, 0),
        (Contender::Kinesin, Contender::Routing) => RGBColor(0, 114, 178),
        (Contender::Kinesin, Contender::Bridge) => RGBColor(0, 158, 115),
        (Contender::KinesinVxlan, Contender::Flannel) => RGBColor(213, 94, 0),
        (Contender::KinesinVxlan, Contender::KinesinVxlanDevice) => RGBColor(240, 228, 66),
        (Contender::KinesinGeneve, Contender::Flannel) => RGBColor(204, 121, 167),
        (Contender::KinesinGeneve, Contender::KinesinVxlan) => RGBColor(86, 180, 233),
        _ => RGBColor(0, 0, 0),
    }
}

fn place(ratio: f64) -> i32 {
    let share = (ratio.clamp(1.0 / FACTOR, FACTOR).ln() / FACTOR.ln() + 1.0) / 2.0;
    LEFT + (share * f64::from(RIGHT - LEFT)).round() as i32
}

pub(super) fn render(report: &Report) -> Result<String, BenchError> {
    let mut svg = String::new();
    draw(report, &mut svg).map_err(|error| BenchError::Plot(error.to_string()))?;
    Ok(svg)
}

type Drawn = Result<(), Box<dyn std::error::Error>>;

fn draw(report: &Report, svg: &mut String) -> Drawn {
    // Tunnels in rows of their own, so that no row has more than four.
    let halves = |(case, metric)| {
        let is_tunnel = |found: &&Comparison| found.ours != Contender::Kinesin;
        let (tunnel, direct): (Vec<_>, Vec<_>) = {
            let metric: &super::MetricReport = metric;
            metric.comparisons.iter().partition(is_tunnel)
        };
        [(case, metric, "", direct), (case, metric, ", tunnels", tunnel)]
    };
    let rows: Vec<_> = report.shown().flat_map(halves).filter(|(.., found)| !found.is_empty()).collect();
    let bottom = TOP + ROW * i32::try_from(rows.len())?;
    let height = bottom + 20;
    let root = SVGBackend::with_string(svg, (u32::try_from(WIDTH)?, u32::try_from(height)?)).into_drawing_area();
    root.fill(&WHITE)?;
    let style =
        |size: i32, hpos: HPos| TextStyle::from(("sans-serif", size)).color(&BLACK).pos(Pos::new(hpos, VPos::Center));
    let text = |words: String, at: (i32, i32), style: TextStyle<'static>| root.draw(&Text::new(words, at, style));
    text("Kinesin, how many times as good (right of 1 is better)".to_owned(), (12, 16), style(16, HPos::Left))?;
    let facts = format!("Linux {}, {} CPUs, {} rounds", report.facts.kernel, report.facts.cpus, report.settings.rounds);
    text(facts, (12, 36), style(12, HPos::Left))?;
    for (line, ours) in
        [&[Contender::Kinesin][..], &[Contender::KinesinVxlan], &[Contender::KinesinGeneve]].iter().enumerate()
    {
        let pairs = ours.iter().flat_map(|ours| ours.rivals().iter().map(move |theirs| (*ours, *theirs)));
        for (at, (ours, theirs)) in pairs.enumerate() {
            let (x, y) = (LEFT - 40 + 220 * i32::try_from(at)?, 36 + 20 * i32::try_from(line)?);
            root.draw(&Circle::new((x, y), 4, colour(ours, theirs).filled()))?;
            text(format!("{ours} against {theirs}"), (x + 10, y), style(12, HPos::Left))?;
        }
    }
    for tick in TICKS {
        let x = place(tick);
        let line = if tick == 1.0 { BLACK.stroke_width(1) } else { RGBColor(221, 221, 221).stroke_width(1) };
        root.draw(&PathElement::new(vec![(x, TOP - 8), (x, bottom)], line))?;
        text(format!("{tick}"), (x, TOP - 16), style(12, HPos::Center))?;
    }
    for (row, (case, metric, which, found)) in rows.into_iter().enumerate() {
        let y = TOP + ROW * i32::try_from(row)? + ROW / 2;
        let words = format!("{} {}{which}", case.case, metric.metric.name());
        text(words, (LEFT - 12, y), style(13, HPos::Right))?;
        for (at, Comparison { ours, theirs, advantage }) in found.iter().enumerate() {
            let y = y + 7 * (i32::try_from(at)? - i32::try_from(found.len() / 2)?);
            let colour = colour(*ours, *theirs);
            let interval = vec![(place(advantage.low), y), (place(advantage.high), y)];
            root.draw(&PathElement::new(interval, colour.stroke_width(2)))?;
            root.draw(&Circle::new((place(advantage.ratio), y), 4, colour.filled()))?;
        }
    }
    root.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_is_in_the_middle_and_nothing_leaves_the_axis() {
        assert_eq!(place(1.0), (LEFT + RIGHT) / 2);
        assert_eq!((place(0.001), place(1000.0)), (LEFT, RIGHT));
        assert!(place(2.0) - place(1.0) == place(1.0) - place(0.5), "twice and half are as far from equal");
    }
}
