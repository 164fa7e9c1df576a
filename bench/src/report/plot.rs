//! The plot: per figure, how many times as good as each of the others Kinesin is, with its interval.

use plotters::{
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};

use super::Report;
use crate::{BenchError, case::Contender};

const WIDTH: i32 = 960;
/// Where the axis begins and ends.
const LEFT: i32 = 330;
const RIGHT: i32 = WIDTH - 30;
const TOP: i32 = 78;
const ROW: i32 = 26;
/// The axis goes from this much worse to this much better; what lies outside stands at its end.
const FACTOR: f64 = 4.0;
const TICKS: [f64; 9] = [0.25, 0.33, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0];

const fn colour(contender: Contender) -> RGBColor {
    // Told apart also by those who see no red or no green: Okabe and Ito, "Color Universal Design" (2008).
    match contender {
        Contender::Kinesin => RGBColor(0, 0, 0),
        Contender::Veth => RGBColor(230, 159, 0),
        Contender::Routing => RGBColor(0, 114, 178),
        Contender::Bridge => RGBColor(0, 158, 115),
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
    let rows: Vec<_> = report.shown().filter(|(_, metric)| !metric.advantages.is_empty()).collect();
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
    for (at, contender) in [Contender::Veth, Contender::Routing, Contender::Bridge].into_iter().enumerate() {
        let x = LEFT + 180 * i32::try_from(at)?;
        root.draw(&Circle::new((x, 36), 4, colour(contender).filled()))?;
        text(format!("against {contender}"), (x + 10, 36), style(13, HPos::Left))?;
    }
    for tick in TICKS {
        let x = place(tick);
        let line = if tick == 1.0 { BLACK.stroke_width(1) } else { RGBColor(221, 221, 221).stroke_width(1) };
        root.draw(&PathElement::new(vec![(x, TOP - 8), (x, bottom)], line))?;
        text(format!("{tick}"), (x, TOP - 16), style(12, HPos::Center))?;
    }
    for (row, (case, metric)) in rows.into_iter().enumerate() {
        let y = TOP + ROW * i32::try_from(row)? + ROW / 2;
        let words = format!("{} {}", case.case, metric.metric.name());
        text(words, (LEFT - 12, y), style(13, HPos::Right))?;
        for (at, (contender, advantage)) in metric.advantages.iter().enumerate() {
            let y = y + 7 * (i32::try_from(at)? - i32::try_from(metric.advantages.len() / 2)?);
            let colour = colour(*contender);
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
