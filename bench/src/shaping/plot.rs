//! The story as a picture: rates over time, and how long the probe took.

use super::report::Told;
use super::{BULK, Options, QUIET, STORY, TENANTS};
use plotters::prelude::*;

const SIZE: (u32, u32) = (1_200, 420);
const COLOURS: [RGBColor; TENANTS.len()] = [
    RGBColor(214, 39, 40),
    RGBColor(31, 119, 180),
    RGBColor(44, 160, 44),
    RGBColor(255, 127, 14),
    RGBColor(148, 103, 189),
    RGBColor(140, 86, 75),
    RGBColor(23, 190, 207),
    RGBColor(127, 127, 127),
];
/// What of the delay is drawn.
const PERCENTILES: [f64; 6] = [10.0, 50.0, 90.0, 99.0, 99.9, 100.0];

/// Writes the file: one row for each gateway, and one for the delays of all.
///
/// # Errors
///
/// Why it cannot be drawn or written.
pub fn draw(told: &[Told], options: &Options) -> Result<(), String> {
    let path = &options.plot;
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(|error| error.to_string())?;
    }
    let rows = told.len() + 1;
    let root = SVGBackend::new(path, (SIZE.0, SIZE.1 * rows as u32)).into_drawing_area();
    root.fill(&WHITE).map_err(text)?;
    let areas = root.split_evenly((rows, 1));
    for (told, area) in told.iter().zip(&areas) {
        rates(told, options, area)?;
    }
    delays(told, options, &areas[rows - 1])?;
    root.present().map_err(text)
}

const FONT: (&str, i32) = ("sans-serif", 20);

/// Nobody takes one machine's picture for another's.
fn caption(what: &str, options: &Options) -> String {
    if options.emulated { format!("{what} (emulated machine)") } else { what.into() }
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

fn rates(told: &Told, options: &Options, area: &Area<'_>) -> Result<(), String> {
    let end = told.rates.last().map_or(1.0, |(at, _)| *at);
    let top = options.rates.port as f64 / 1e6 * 1.15;
    let mut chart = ChartBuilder::on(area)
        .caption(caption(&format!("{}: Mbit/s of each tenant over seconds", told.kind.label()), options), FONT)
        .margin(12)
        .x_label_area_size(30)
        .y_label_area_size(50)
        .build_cartesian_2d(0.0..end, 0.0..top)
        .map_err(text)?;
    chart.configure_mesh().x_desc("s").y_desc("Mbit/s").draw().map_err(text)?;
    for (at, part) in told.starts.iter().zip(&STORY) {
        let line = PathElement::new([(*at, 0.0), (*at, top)], BLACK.mix(0.3));
        chart.draw_series(std::iter::once(line)).map_err(text)?;
        let name = Text::new(part.name, (*at + end / 200.0, top * 0.98), ("sans-serif", 14));
        chart.draw_series(std::iter::once(name)).map_err(text)?;
    }
    for (tenant, colour) in COLOURS.into_iter().enumerate() {
        let points = told.rates.iter().map(|(at, rates)| (*at, rates[tenant]));
        chart
            .draw_series(LineSeries::new(points, colour.stroke_width(2)))
            .map_err(text)?
            .label(TENANTS[tenant].name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(2)));
    }
    chart.configure_series_labels().background_style(WHITE.mix(0.8)).border_style(BLACK).draw().map_err(text)
}

fn delays(told: &[Told], options: &Options, area: &Area<'_>) -> Result<(), String> {
    let most = told.iter().map(|told| told.delay(BULK, 100.0).max(told.delay(QUIET, 100.0))).fold(1_000.0, f64::max);
    let mut chart = ChartBuilder::on(area)
        .caption(caption("round-trip time of the interactive class, us, by percentile", options), FONT)
        .margin(12)
        .x_label_area_size(30)
        .y_label_area_size(60)
        .build_cartesian_2d(0..PERCENTILES.len() - 1, (10.0..most * 1.2).log_scale())
        .map_err(text)?;
    chart
        .configure_mesh()
        .x_labels(PERCENTILES.len())
        .x_label_formatter(&|at| PERCENTILES.get(*at).map_or(String::new(), |percent| format!("p{percent}")))
        .y_desc("us")
        .draw()
        .map_err(text)?;
    let lines = told.iter().flat_map(|told| [(told, QUIET, "quiet"), (told, BULK, "under bulk overload")]);
    for ((told, part, when), colour) in lines.zip(COLOURS) {
        let points = PERCENTILES.iter().enumerate().map(|(at, percent)| (at, told.delay(part, *percent).max(10.0)));
        chart
            .draw_series(LineSeries::new(points, colour.stroke_width(2)).point_size(3))
            .map_err(text)?
            .label(format!("{}, {when}", told.kind.label()))
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(2)));
    }
    chart.configure_series_labels().background_style(WHITE.mix(0.8)).border_style(BLACK).draw().map_err(text)
}

fn text(error: impl std::error::Error) -> String {
    error.to_string()
}
