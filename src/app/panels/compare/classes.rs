//! The robust accuracy of each class, with one bar per run.

use egui::{Align2, FontId, Sense, Ui};

use super::{Shown, Weights, legend, unseeded};
use crate::app::runs::Summary;
use crate::app::widgets::markdown::unbroken;
use crate::app::widgets::weak;
use crate::app::{focus, theme};

/// Height of a bar.
const BAR: f32 = 14.0;

/// Shows the card; `open` are the classes of the run of this window, which are highlighted in all panels.
pub(super) fn ui(ui: &mut Ui, open: &[String], shown: &[Shown], weights: Weights) {
    let palette = theme::palette(ui);
    let summaries: Vec<_> =
        shown.iter().filter_map(|shown| Some((shown, shown.run.summary(weights.name())?))).collect();
    let Some((_, first)) = summaries.first() else {
        ui.label(weak(ui, "No run has finished an epoch yet."));
        return;
    };
    let mut names: Vec<&str> = first.classes.iter().map(|class| class.0.as_str()).collect();
    for (_, summary) in &summaries[1..] {
        names.extend(summary.classes.iter().map(|class| class.0.as_str()));
    }
    let mut seen = std::collections::HashSet::new();
    names.retain(|name| seen.insert(*name));
    let like_first =
        |summary: &Summary| unseeded(&summary.attack) == unseeded(&first.attack) && summary.part == first.part;
    let notes = if summaries.iter().all(|(_, summary)| like_first(summary)) {
        vec![format!(
            "On the {}, under {}. The worst class of each run is marked.",
            first.part,
            unseeded(&first.attack)
        )]
    } else {
        let note = |(shown, summary): &(&Shown, Summary)| {
            format!("{}: {}, under {}.", shown.run.name, summary.part, summary.attack)
        };
        summaries.iter().map(note).collect()
    };
    for note in notes {
        ui.label(weak(ui, unbroken(&note)).size(13.0));
    }
    legend(ui, shown);
    let font = FontId::proportional(13.5);
    let text = ui.visuals().text_color();
    let widest = names
        .iter()
        .map(|name| ui.painter().layout_no_wrap((*name).to_owned(), font.clone(), text).size().x)
        .fold(0.0, f32::max)
        .min(110.0);
    for (index, name) in names.into_iter().enumerate() {
        let height = BAR * summaries.len() as f32 + 8.0;
        let (rect, response) = ui.allocate_exact_size(egui::vec2(ui.available_width(), height), Sense::hover());
        if !ui.is_rect_visible(rect) {
            continue;
        }
        focus::row_named(ui, rect, name, open, index);
        let painter = ui.painter_at(rect);
        painter.text(egui::pos2(rect.left() + widest, rect.center().y), Align2::RIGHT_CENTER, name, font.clone(), text);
        let left = rect.left() + widest + 8.0;
        let full = rect.right() - left - 62.0;
        let mut words = Vec::new();
        for (i, (shown, summary)) in summaries.iter().enumerate() {
            let top = rect.top() + 4.0 + BAR * i as f32;
            let ground = egui::Rect::from_min_size(egui::pos2(left, top + 1.0), egui::vec2(full, BAR - 2.0));
            painter.rect_filled(ground, 2.0, ui.visuals().faint_bg_color);
            let Some((_, _, robust)) = summary.classes.iter().find(|class| class.0 == name) else { continue };
            if robust.is_nan() {
                let (place, font) = (egui::pos2(ground.left() + 4.0, ground.center().y), FontId::proportional(12.0));
                painter.text(place, Align2::LEFT_CENTER, "n/a", font, text);
                words.push(format!("{} n/a, no test images", shown.run.name));
                continue;
            }
            let share = robust.clamp(0.0, 1.0) as f32;
            let bar = egui::Rect::from_min_size(ground.min, egui::vec2(full * share, ground.height()));
            painter.rect_filled(bar, 2.0, shown.color(ui));
            let worst = !summary.classes.iter().any(|class| class.2 < *robust);
            let color = if worst { palette.worst } else { text };
            let mark = if worst { " worst" } else { "" };
            let place = egui::pos2(ground.left() + full * share + 4.0, ground.center().y);
            painter.text(
                place,
                Align2::LEFT_CENTER,
                format!("{:.0}{mark}", 100.0 * robust),
                FontId::proportional(12.0),
                color,
            );
            words.push(format!("{} {:.1} %{mark}", shown.run.name, 100.0 * robust));
        }
        let words = format!("{name}: {}", words.join(", "));
        response.widget_info(|| egui::WidgetInfo::labeled(egui::Role::Label, true, &words));
        response.on_hover_text(words);
    }
}
