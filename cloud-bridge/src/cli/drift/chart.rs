//! Drift as a picture: each feature's bins or categories as it was trained, and now.
//!
//! Decides how a picture looks. It has its letters in itself: no font is needed on the machine.

use super::show::Show;
use crate::fault::Fault;
use crate::service::view::{DriftFeatureView, DriftGroupView, DriftView};
use image::RgbImage;
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::{FontStyle, register_font};
use std::path::Path;

/// Width and height of one feature's part, in pixels.
const PANEL: (u32, u32) = (360, 240);
const COLUMNS: usize = 3;
/// The most parts of one picture: more nobody looks at.
const MOST_PANELS: usize = 60;
const TRAINED: RGBColor = RGBColor(160, 160, 160);
const NOW: RGBColor = RGBColor(31, 119, 180);
const LOUD: RGBColor = RGBColor(200, 30, 30);

type Panel<'a> = (&'a DriftGroupView, &'a DriftFeatureView);

/// Writes the pictures that were asked for.
///
/// # Errors
/// When there is nothing to draw, or the file cannot be written.
pub(super) fn write(show: &Show, view: &DriftView) -> anyhow::Result<()> {
    let of_group = |group| {
        let group: &DriftGroupView = group;
        group.features.iter().map(move |feature| (group, feature))
    };
    let panels: Vec<Panel<'_>> = view.groups.iter().flat_map(of_group).take(MOST_PANELS).collect();
    if panels.is_empty() {
        return Err(Fault::new("there is nothing to draw").because("no window has come in that time").into());
    }
    let columns = panels.len().min(COLUMNS);
    let size = (PANEL.0 * columns as u32, PANEL.1 * panels.len().div_ceil(columns) as u32);
    // A second time it is registered already.
    let _ = register_font("sans-serif", FontStyle::Normal, dejavu::sans::regular());
    if let Some(path) = &show.svg {
        let mut text = String::new();
        draw(&SVGBackend::with_string(&mut text, size).into_drawing_area(), columns, &panels)?;
        std::fs::write(path, text).map_err(|why| unwritable(path, why))?;
    }
    if let Some(path) = &show.png {
        let mut pixels = vec![0; size.0 as usize * size.1 as usize * 3];
        draw(&BitMapBackend::with_buffer(&mut pixels, size).into_drawing_area(), columns, &panels)?;
        let picture = RgbImage::from_raw(size.0, size.1, pixels).expect("as many pixels as were drawn");
        picture.save_with_format(path, image::ImageFormat::Png).map_err(|why| unwritable(path, why))?;
    }
    Ok(())
}

fn unwritable(path: &Path, why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Fault {
    Fault::new(format!("cannot write {}", path.display())).because(why).remedy("choose another place")
}

fn draw<B: DrawingBackend>(area: &DrawingArea<B, Shift>, columns: usize, panels: &[Panel<'_>]) -> anyhow::Result<()> {
    let failed = |why: DrawingAreaErrorKind<B::ErrorType>| anyhow::anyhow!("the picture cannot be drawn: {why}");
    area.fill(&WHITE).map_err(failed)?;
    for (part, panel) in area.split_evenly((panels.len().div_ceil(columns), columns)).iter().zip(panels) {
        draw_one(part, panel).map_err(failed)?;
    }
    area.present().map_err(failed)
}

fn draw_one<B: DrawingBackend>(
    part: &DrawingArea<B, Shift>,
    (group, feature): &Panel<'_>,
) -> Result<(), DrawingAreaErrorKind<B::ErrorType>> {
    let bins = feature.trained.len().max(1);
    let most = feature.trained.iter().chain(&feature.now).copied().fold(0.01, f64::max);
    let quiet = feature.level == "quiet";
    let title = format!("{} ({} {}){}", feature.name, group.key, group.release, if quiet { "" } else { ": drift" });
    let style = ("sans-serif", 14).into_font().color(if quiet { &BLACK } else { &LOUD });
    let mut chart = ChartBuilder::on(part)
        .margin(8)
        .caption(title, style)
        .x_label_area_size(22)
        .y_label_area_size(36)
        .build_cartesian_2d(0f64..bins as f64, 0f64..most * 1.3)?;
    let name = |at: &f64| match feature.categories.get(*at as usize) {
        Some(category) => category.chars().take(8).collect(),
        None if feature.categories.is_empty() => {
            feature.edges.get(*at as usize).map_or(String::new(), |edge| format!("{edge:.3}"))
        }
        None => "other".to_owned(),
    };
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_labels(6)
        .y_labels(4)
        .x_label_formatter(&name)
        .y_label_formatter(&|share| format!("{:.0} %", 100.0 * share))
        .label_style(("sans-serif", 11))
        .draw()?;
    let bars = |shares: &[f64], from: f64, to: f64, colour: RGBColor| {
        let bar = |(at, share): (usize, &f64)| {
            let at = at as f64;
            Rectangle::new([(at + from, 0.0), (at + to, *share)], colour.filled())
        };
        shares.iter().enumerate().map(bar).collect::<Vec<_>>()
    };
    chart.draw_series(bars(&feature.trained, 0.1, 0.5, TRAINED))?.label("trained").legend(key(TRAINED));
    chart.draw_series(bars(&feature.now, 0.5, 0.9, NOW))?.label("now").legend(key(NOW));
    let mut labels = chart.configure_series_labels();
    labels.position(SeriesLabelPosition::UpperRight).background_style(WHITE).label_font(("sans-serif", 11)).draw()
}

fn key(colour: RGBColor) -> impl Fn((i32, i32)) -> Rectangle<(i32, i32)> {
    move |(x, y)| Rectangle::new([(x, y - 4), (x + 8, y + 4)], colour.filled())
}
