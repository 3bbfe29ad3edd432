//! The control of a field, selected by its kind. Some fields have a control of their own.

use egui::{ComboBox, DragValue, Id, Response, RichText, Ui, vec2};
use serde_json::{Value, json};

use super::download::Offered;
use super::machine::Unknown;
use super::row::Sheet;
use crate::app::context::{Action, Context, OpenFor};
use crate::app::level::Level;
use crate::app::theme;
use crate::app::widgets::weak;
use crate::config::EngineChoice;
use crate::config::fields::{Field, Kind, item};
use crate::data::source_names;
use crate::engine::wgsl::AdapterSummary;
use crate::units::Epsilon;

/// Largest integer up to which every control is exact.
const WHOLE: f64 = 9_007_199_254_740_991.0;

/// Draws the control, labelled by `label`. Returns its response, for a tooltip.
pub(super) fn show(
    ui: &mut Ui,
    context: &mut Context<'_>,
    sheet: &Sheet<'_>,
    field: &'static Field,
    label: Id,
) -> Option<Response> {
    let value = sheet.value(field);
    match (field.path, field.kind) {
        ("data.dataset", _) => {
            let choices: Vec<_> = source_names().map(|name| (name.to_owned(), json!(name))).collect();
            Some(pick(ui, context, field, label, value, &choices))
        }
        ("run.adapter", _) => Some(adapter(ui, context, sheet, field, label)),
        (_, Kind::Choice) => {
            let choices: Vec<_> =
                field.choices.iter().map(|choice| (choice.name.clone(), json!(choice.name))).collect();
            Some(pick(ui, context, field, label, value, &choices))
        }
        (_, Kind::Choices) => Some(several(ui, context, field, label, value)),
        (_, Kind::Bool) => {
            let mut on = value.as_bool().unwrap_or_default();
            let text = if on { "yes" } else { "no" };
            let response = ui.checkbox(&mut on, text).labelled_by(label);
            if response.changed() {
                once(context, field, json!(on));
            }
            Some(response)
        }
        (_, Kind::Text | Kind::Path) => Some(text(ui, context, field, label, value)),
        (_, Kind::Integers | Kind::Reals) => Some(list(ui, context, field, label, value)),
        (_, Kind::Integer | Kind::Real | Kind::Epsilon) => number(ui, context, sheet, field, label),
    }
}

/// Information on the value of a field.
pub(super) struct Note {
    /// A short text.
    pub(super) text: String,
    /// Whether a run cannot start because of it.
    pub(super) serious: bool,
    /// A command that fixes the problem.
    pub(super) command: Option<String>,
    /// A download that fixes it.
    pub(super) download: Option<Offered>,
}

/// The note below the line of a field, if any.
pub(super) fn note(sheet: &Sheet<'_>, field: &Field) -> Option<Note> {
    let known = |text: String| Some(Note { text, serious: false, command: None, download: None });
    match field.path {
        "data.dataset" => match sheet.machine.images(&sheet.experiment) {
            Some(images) if images.text.is_empty() => None,
            Some(images) => Some(Note {
                text: images.text.clone(),
                serious: images.missing,
                command: images.command.clone(),
                download: images.download.clone(),
            }),
            None => match sheet.machine.unknown() {
                Unknown::Typing => known("checked when you stop typing".into()),
                Unknown::Reading => known("looking at the disk…".into()),
                Unknown::Unanswered => Some(Note {
                    text: "the disk does not answer; a network or removable drive may be away: choose another folder"
                        .into(),
                    serious: true,
                    command: None,
                    download: None,
                }),
            },
        },
        "run.engine" if sheet.experiment.run.engine != EngineChoice::Candle => known(match sheet.machine.gpus() {
            Some(gpus) if sheet.experiment.run.engine == EngineChoice::Auto => format!("selects {}", gpus.engine),
            Some(gpus) => gpus.engine.clone(),
            None => "looking for GPUs…".into(),
        }),
        _ => None,
    }
}

/// Changes a field as a separate step of the history.
fn once(context: &mut Context<'_>, field: &Field, value: Value) {
    context.form.settle();
    change(context, field, value);
    context.form.settle();
}

/// Changes a field; consecutive changes form one step of the history.
fn change(context: &mut Context<'_>, field: &Field, value: Value) {
    if let Err(error) = context.form.set(field.path, value) {
        // The controls only offer valid values; if one is invalid after all, report it.
        context.ask(Action::Toast(Level::Warning, error));
    }
}

/// A selection of one of several values, each with its displayed text.
fn pick(
    ui: &mut Ui,
    context: &mut Context<'_>,
    field: &Field,
    label: Id,
    value: &Value,
    choices: &[(String, Value)],
) -> Response {
    let width = ui.available_width();
    let mut chosen = None;
    let known = choices.iter().find(|(_, choice)| choice == value).map(|(text, _)| text.clone());
    let combo = ComboBox::from_id_salt("value").width(width).truncate();
    let combo = combo.selected_text(known.unwrap_or_else(|| field.written(value)));
    let response = combo.show_ui(ui, |ui| {
        ui.set_min_width(width.max(160.0));
        for (text, of) in choices {
            let item = ui.selectable_label(value == of, text);
            let item = match field.choices.iter().find(|choice| choice.name == *text && !choice.help.is_empty()) {
                Some(choice) => item.on_hover_text(&choice.help),
                None => item,
            };
            if item.clicked() {
                chosen = Some(of.clone());
            }
        }
    });
    if let Some(chosen) = chosen {
        once(context, field, chosen);
    }
    response.response.labelled_by(label)
}

/// Selection of the GPU: the adapters of this machine, by name.
fn adapter(ui: &mut Ui, context: &mut Context<'_>, sheet: &Sheet<'_>, field: &Field, label: Id) -> Response {
    let value = sheet.value(field);
    let Some(gpus) = sheet.machine.gpus() else {
        return pick(ui, context, field, label, value, &[("looking for GPUs…".to_owned(), value.clone())]);
    };
    let mut choices: Vec<(String, Value)> = vec![
        (field.unset.unwrap_or_default().to_owned(), Value::Null),
        ("high-performance".into(), json!("high-performance")),
        ("low-power".into(), json!("low-power")),
    ];
    let usable = |adapter: &&AdapterSummary| adapter.tier.is_some();
    choices.extend(gpus.adapters.iter().filter(usable).map(|adapter| {
        let line = format!("{} ({}, {})", adapter.name, adapter.kind.name(), adapter.backend);
        (line, json!(adapter.index.to_string()))
    }));
    pick(ui, context, field, label, value, &choices)
}

/// Selection of any number of values.
fn several(ui: &mut Ui, context: &mut Context<'_>, field: &Field, label: Id, value: &Value) -> Response {
    let width = ui.available_width();
    let mut names: Vec<String> =
        value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
    let mut changed = false;
    let combo = ComboBox::from_id_salt("value").width(width).truncate().selected_text(field.written(value));
    let combo = combo.close_behavior(egui::PopupCloseBehavior::CloseOnClickOutside);
    let response = combo.show_ui(ui, |ui| {
        ui.set_min_width(width.max(160.0));
        for choice in &field.choices {
            let mut on = names.contains(&choice.name);
            if ui.checkbox(&mut on, &choice.name).on_hover_text(&choice.help).changed() {
                changed = true;
                names.retain(|name| *name != choice.name);
                names.extend(on.then(|| choice.name.clone()));
            }
        }
    });
    if changed {
        // In declaration order, so that equal selections are equal values.
        let ordered = field.choices.iter().map(|choice| &choice.name).filter(|name| names.contains(name));
        once(context, field, ordered.map(|name| json!(name)).collect());
    }
    response.response.labelled_by(label)
}

/// A name or a path.
fn text(ui: &mut Ui, context: &mut Context<'_>, field: &Field, label: Id, value: &Value) -> Response {
    let path = field.kind == Kind::Path;
    // While it is typed, the text is kept as it is: `/tmp/` and `/tmp` are the same path, but not the same beginning.
    let id = ui.make_persistent_id((field.path, "typed"));
    let typed = ui.data(|data| data.get_temp::<String>(id));
    let mut text = typed.unwrap_or_else(|| value.as_str().unwrap_or_default().to_owned());
    let width = ui.available_width() - if path { 30.0 } else { 0.0 };
    let edit = egui::TextEdit::singleline(&mut text).hint_text(field.unset.unwrap_or_default());
    let response = ui.add_sized(vec2(width, ui.available_height()), edit).labelled_by(label);
    if response.changed() {
        let value = if text.is_empty() && field.unset.is_some() { Value::Null } else { json!(&text) };
        change(context, field, value);
    }
    if response.has_focus() {
        ui.data_mut(|data| data.insert_temp(id, text));
    } else {
        ui.data_mut(|data| data.remove::<String>(id));
    }
    if response.lost_focus() {
        context.form.settle();
    }
    if path {
        let choose = ui.add_sized(vec2(26.0, ui.available_height()), egui::Button::new("…"));
        if choose.accessible_name(format!("Choose {}", field.label)).on_hover_text("Choose a folder").clicked() {
            context.ask(Action::Open(OpenFor::DataPath));
        }
    }
    response
}

/// Numbers, separated by commas. The text is parsed when the box loses focus, because a half-typed list may be invalid.
fn list(ui: &mut Ui, context: &mut Context<'_>, field: &Field, label: Id, value: &Value) -> Response {
    let id = ui.make_persistent_id((field.path, "typed"));
    let items = value.as_array().into_iter().flatten().map(item).collect::<Vec<_>>();
    let mut text = ui.data(|data| data.get_temp::<String>(id)).unwrap_or_else(|| items.join(", "));
    let edit = egui::TextEdit::singleline(&mut text).hint_text("none");
    let response = ui.add_sized(vec2(ui.available_width(), ui.available_height()), edit).labelled_by(label);
    if response.lost_focus() {
        ui.data_mut(|data| data.remove::<String>(id));
        match typed_list(&text, field.kind) {
            Ok(typed) if typed != *value => once(context, field, typed),
            Ok(_) => {}
            Err(what) => context.ask(Action::Toast(Level::Warning, format!("{}: {what}", field.label))),
        }
    } else if response.has_focus() {
        ui.data_mut(|data| data.insert_temp(id, text));
    }
    response
}

/// Parses numbers separated by commas or spaces.
fn typed_list(text: &str, kind: Kind) -> Result<Value, String> {
    let words = text.split(|c: char| c == ',' || c.is_whitespace()).filter(|word| !word.is_empty());
    let number = |word: &str| {
        let whole = || word.parse::<u64>().ok().map(|number| json!(number));
        let real = || word.parse::<f64>().ok().filter(|number| number.is_finite()).map(|number| json!(number));
        let (number, expected) = match kind {
            Kind::Integers => (whole(), "whole numbers"),
            _ => (real(), "numbers"),
        };
        number.ok_or_else(|| format!("expected {expected} separated by commas, found '{word}'"))
    };
    words.map(number).collect::<Result<Vec<_>, _>>().map(Value::Array)
}

/// A number, or a check box that sets one.
fn number(
    ui: &mut Ui,
    context: &mut Context<'_>,
    sheet: &Sheet<'_>,
    field: &'static Field,
    label: Id,
) -> Option<Response> {
    let value = sheet.value(field);
    if let Some(unset) = field.unset {
        let mut set = !value.is_null();
        ui.spacing_mut().item_spacing.x = 0.0;
        ui.spacing_mut().icon_spacing = if set { 0.0 } else { 4.0 };
        let text = if set { RichText::new("") } else { weak(ui, unset) };
        let response = ui.checkbox(&mut set, text);
        let response = match value.is_null() {
            true => response.labelled_by(label),
            false => response.accessible_name(format!("Set {}", field.label)),
        };
        if response.changed() {
            once(context, field, if set { suggestion(sheet, field) } else { Value::Null });
        }
        if value.is_null() {
            return Some(response);
        }
    }
    let number = match field.kind {
        Kind::Epsilon => levels(value),
        _ => value.as_f64().unwrap_or_default(),
    };
    let mut new = number;
    let response = drag(ui, field, &mut new).labelled_by(label);
    if response.changed() && new != number {
        change(context, field, to_value(field, new));
    }
    if response.drag_stopped() || response.lost_focus() {
        context.form.settle();
    }
    Some(response)
}

/// A box with a number that can be dragged or typed, and a line that shows its position in the range.
fn drag(ui: &mut Ui, field: &Field, number: &mut f64) -> Response {
    let (least, most) = field.range;
    let id = ui.next_auto_id();
    let typing = ui.memory(|memory| memory.has_focus(id));
    // Typed text is applied in the frame in which the box loses focus.
    let left = !typing && ui.data(|data| data.get_temp::<bool>(id)).unwrap_or_default();
    ui.data_mut(|data| data.insert_temp(id, typing));
    // Dragging is limited to the sensible range; typing is not.
    let range = if typing || left { 0.0..=WHOLE } else { least..=most };
    let span = (most - least) / 250.0;
    let speed = match field.kind {
        _ if field.logarithmic => (number.abs() * 0.015).max(span * 0.01),
        Kind::Integer => span.max(0.08),
        Kind::Epsilon => 0.08,
        _ => span,
    };
    let shown = *number;
    let mut drag =
        DragValue::new(number).range(range).speed(speed).clamp_existing_to_range(false).update_while_editing(false);
    drag = match field.kind {
        Kind::Integer => drag.fixed_decimals(0),
        _ => drag.max_decimals(6).custom_formatter(|number, _| plain(number)),
    };
    if field.kind == Kind::Epsilon {
        drag = drag.custom_parser(typed_levels).max_decimals(2);
        if !typing {
            let (narrow, decimal) = (ui.available_width() < 115.0, shown / 255.0);
            if narrow {
                ui.style_mut().drag_value_text_style = egui::TextStyle::Small;
            }
            drag = if narrow {
                drag.suffix(RichText::new(format!("/255 ({decimal:.3})")).small())
            } else {
                drag.suffix(format!("/255 ({decimal:.4})"))
            };
        }
    }
    match field.unit {
        // If the unit does not fit, the tooltip names it.
        "images" | "pixels" | "steps" | "epochs" | "channels" if ui.available_width() >= 108.0 => {
            let unit = if shown == 1.0 { field.unit.trim_end_matches('s') } else { field.unit };
            drag = drag.suffix(format!(" {unit}"));
        }
        unit @ ("epoch" | "class") => drag = drag.prefix(format!("{unit} ")),
        _ => {}
    }
    let size = vec2(ui.available_width(), ui.available_height());
    ui.spacing_mut().button_padding.x = 2.0;
    let response = ui.add(drag.min_size(size));
    if !typing && ui.is_enabled() {
        let share = if field.logarithmic && least > 0.0 {
            (shown / least).ln() / (most / least).ln()
        } else {
            (shown - least) / (most - least)
        };
        let inner = response.rect.shrink2(vec2(3.0, 0.0));
        let y = inner.bottom() - 1.5;
        let to = inner.left() + inner.width() * share.clamp(0.0, 1.0) as f32;
        let color = theme::palette(ui).accent.gamma_multiply(0.7);
        ui.painter().hline(inner.left()..=to, y, (2.0, color));
    }
    response
}

/// The field's value for the number of a control.
fn to_value(field: &Field, number: f64) -> Value {
    match field.kind {
        Kind::Integer => json!(number.round().clamp(0.0, WHOLE) as u64),
        Kind::Epsilon => json!(format!("{}/255", plain(number))),
        _ => json!(number),
    }
}

/// The value of an unset field when it is switched on.
fn suggestion(sheet: &Sheet<'_>, field: &Field) -> Value {
    let preset = sheet.base.map(|base| base.values.get(field.path)).filter(|value| !value.is_null());
    let first = preset.cloned().or_else(|| field.first(&sheet.experiment));
    first.unwrap_or_else(|| to_value(field, field.range.0))
}

/// The `k` of `k/255`, rounded to the value that was written if that is the same radius.
fn levels(value: &Value) -> f64 {
    let epsilon = serde_json::from_value::<Epsilon>(value.clone()).unwrap_or(Epsilon::ZERO);
    let levels = epsilon.exact() * 255.0;
    let rounded = (levels * 1000.0).round() / 1000.0;
    if Epsilon::levels(rounded) == epsilon { rounded } else { levels }
}

/// `8`, `8/255` and `0.0314` all mean eight levels: a decimal below one is the distance itself.
fn typed_levels(text: &str) -> Option<f64> {
    let text: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    match text.parse::<f64>() {
        Ok(number) if number >= 1.0 || !text.contains('.') => Some(number),
        _ => Some(text.parse::<Epsilon>().ok()?.exact() * 255.0),
    }
}

/// All significant digits up to the sixth.
fn plain(number: f64) -> String {
    let short = format!("{number:.6}");
    let short = short.trim_end_matches('0').trim_end_matches('.');
    if short.parse::<f64>().is_ok_and(|read| (read - number).abs() <= 1e-9) {
        short.to_owned()
    } else {
        number.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_typed_as_people_write_them() {
        for (text, expected) in [("8", 8.0), ("8/255", 8.0), (" 1.5 / 255 ", 1.5), ("0.5/255", 0.5), ("0", 0.0)] {
            assert_eq!(typed_levels(text), Some(expected), "{text}");
        }
        assert!((typed_levels("0.0314").unwrap() - 8.007).abs() < 1e-9);
        for bad in ["", "x", "-1/255", "8/0"] {
            assert_eq!(typed_levels(bad), None, "{bad}");
        }
        assert_eq!(levels(&json!("24/255")), 24.0);
        assert_eq!((plain(0.0005), plain(8.0), plain(1e-7)), ("0.0005".into(), "8".into(), "0.0000001".into()));
    }

    #[test]
    fn lists_are_typed_with_commas_or_spaces() {
        assert_eq!(typed_list("75, 90,100", Kind::Integers), Ok(json!([75, 90, 100])));
        assert_eq!(typed_list(" 0.1 0.5,", Kind::Reals), Ok(json!([0.1, 0.5])));
        assert_eq!(typed_list("", Kind::Integers), Ok(json!([])));
        assert!(typed_list("75, 0.5", Kind::Integers).unwrap_err().contains("found '0.5'"));
        assert!(typed_list("inf", Kind::Reals).is_err());
    }
}
