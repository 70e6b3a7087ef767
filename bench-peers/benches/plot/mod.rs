//! Owns the pictures: lines in a chart, written as SVG where `--svg DIR` asks for it.
//!
//! Invariant: a picture can be read on a light and on a dark page. Its background is transparent,
//! its text and axes are of a middle grey, and its lines have colours that stand out from both.
//! Knows nothing of what is measured.

use std::ops::Range;
use std::path::PathBuf;

use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::*;

const SIZE: (u32, u32) = (840, 440);

/// How much of the width the chart has; beside it are the names of the lines.
const CHART: u32 = 610;

const GREY: RGBColor = RGBColor(128, 128, 128);

/// Of the first line and of those that follow.
const COLOURS: [RGBColor; 12] = [
    RGBColor(214, 80, 60),
    RGBColor(128, 128, 128),
    RGBColor(58, 134, 214),
    RGBColor(46, 160, 90),
    RGBColor(178, 102, 204),
    RGBColor(204, 140, 30),
    RGBColor(30, 160, 170),
    RGBColor(150, 110, 80),
    RGBColor(230, 110, 150),
    RGBColor(110, 120, 220),
    RGBColor(130, 160, 40),
    RGBColor(90, 150, 140),
];

/// What one axis shows.
#[derive(Debug)]
pub(crate) struct Axis {
    pub(crate) name: &'static str,
    pub(crate) logarithmic: bool,
}

/// A picture with a line for each name.
#[derive(Debug)]
pub(crate) struct Plot {
    pub(crate) title: &'static str,
    pub(crate) x: Axis,
    pub(crate) y: Axis,
    pub(crate) lines: Vec<(String, Vec<(f64, f64)>)>,
    /// Whether the points of a line are marked, because there are few.
    pub(crate) marked: bool,
}

impl Plot {
    /// Writes the picture to `NAME.svg` in the directory that `--svg` names, if it is given.
    pub(crate) fn write(&self, name: &str) {
        let Some(dir) = directory() else { return };
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join(name).with_extension("svg");
        let root = SVGBackend::new(&path, SIZE).into_drawing_area();
        let points = || self.lines.iter().flat_map(|(_, points)| points);
        let x = range(points().map(|point| point.0), &self.x);
        let y = range(points().map(|point| point.1), &self.y);
        match (self.x.logarithmic, self.y.logarithmic) {
            (true, true) => self.draw(&root, x.log_scale(), y.log_scale()),
            (true, false) => self.draw(&root, x.log_scale(), y),
            (false, true) => self.draw(&root, x, y.log_scale()),
            (false, false) => self.draw(&root, x, y),
        }
        root.present().unwrap();
        println!("picture: {}", path.display());
    }

    fn draw<X, Y>(&self, root: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>, x: X, y: Y)
    where
        X: AsRangedCoord<Value = f64>,
        Y: AsRangedCoord<Value = f64>,
        X::CoordDescType: ValueFormatter<f64>,
        Y::CoordDescType: ValueFormatter<f64>,
    {
        let text = |size: i32| ("sans-serif", size).into_font().color(&GREY);
        let (chart, names) = root.split_horizontally(CHART);
        let mut chart = ChartBuilder::on(&chart)
            .caption(self.title, text(17))
            .margin(12)
            .margin_right(24)
            .x_label_area_size(48)
            .y_label_area_size(72)
            .build_cartesian_2d(x, y)
            .unwrap();
        chart
            .configure_mesh()
            .axis_style(GREY)
            .bold_line_style(GREY.mix(0.3))
            .light_line_style(TRANSPARENT)
            .label_style(text(15))
            .axis_desc_style(text(16))
            .x_desc(self.x.name)
            .y_desc(self.y.name)
            .x_label_formatter(&|value| label(*value))
            .y_label_formatter(&|value| label(*value))
            .draw()
            .unwrap();
        // The first one last, so that no other covers it.
        for ((_, points), colour) in self.lines.iter().zip(COLOURS).rev() {
            let style = colour.stroke_width(2);
            chart.draw_series(LineSeries::new(points.iter().copied(), style)).unwrap();
            if self.marked {
                let mark = |point: &(f64, f64)| Circle::new(*point, 3, colour.filled());
                chart.draw_series(points.iter().map(mark)).unwrap();
            }
        }
        for (place, ((name, _), colour)) in (0..).zip(self.lines.iter().zip(COLOURS)) {
            let y = 60 + 24 * place;
            let line = PathElement::new([(0, y), (20, y)], colour.stroke_width(3));
            names.draw(&line).unwrap();
            names.draw(&Text::new(name.as_str(), (28, y - 7), text(15))).unwrap();
        }
    }
}

/// From the least to the greatest value, and a little more: to the next powers of ten on a
/// logarithmic axis, which has its numbers there, and from zero on another.
fn range(values: impl Iterator<Item = f64>, axis: &Axis) -> Range<f64> {
    let (least, most) = values
        .fold((f64::INFINITY, 0.0_f64), |(least, most), value| (least.min(value), most.max(value)));
    if axis.logarithmic {
        10.0_f64.powf(least.log10().floor())..10.0_f64.powf(most.log10().ceil())
    } else {
        0.0..most * 1.02
    }
}

/// A number as few digits say it.
fn label(value: f64) -> String {
    if value >= 1e6 {
        format!("{}M", value / 1e6)
    } else if value >= 1e3 {
        format!("{}k", value / 1e3)
    } else {
        // Without the last digits of a step such as 0.1 that has no exact number.
        format!("{}", (value * 1e6).round() / 1e6)
    }
}

/// Where pictures are to be written.
fn directory() -> Option<PathBuf> {
    std::env::args().skip_while(|arg| arg != "--svg").nth(1).map(PathBuf::from)
}
