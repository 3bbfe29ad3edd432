//! The row of menus and run controls at the top, and the status line at the bottom.

use egui::{Align, Layout, Ui};

use super::command::{Command, Menu, SpeedChoice};
use super::context::Action;
use super::settings::Theme;
use super::theme;
use super::view::Status;
use super::widgets::{Icon, Look, icon_button, strong, weak};
use super::window::App;
use crate::worker::{EpochRecord, Phase};

/// Menus and run controls.
pub(super) fn top(app: &mut App, ui: &mut Ui) {
    egui::Panel::top("top").show(ui, |ui| {
        egui::MenuBar::new().ui(ui, |ui| {
            let narrow = ui.available_width() < 700.0;
            if narrow {
                ui.menu_button("Menu", |ui| {
                    for menu in Menu::ALL {
                        ui.menu_button(menu.title(), |ui| entries(app, ui, menu));
                    }
                });
            } else {
                for menu in Menu::ALL {
                    ui.menu_button(menu.title(), |ui| entries(app, ui, menu));
                }
            }
            ui.add_space(8.0);
            ui.separator();
            ui.add_space(2.0);
            // Menu bars draw their buttons without a background; these controls should look like any other button.
            ui.reset_style();
            controls(app, ui, narrow);
        });
    });
}

fn entries(app: &mut App, ui: &mut Ui, menu: Menu) {
    for command in Command::all().filter(|command| command.menu() == menu) {
        if command.begins_group() {
            ui.separator();
        }
        let enabled = app.enabled(command);
        let keys = command.shortcut().map(|keys| ui.ctx().format_shortcut(&keys)).unwrap_or_default();
        let chosen = match command {
            Command::ThemeLight => app.settings.theme == Theme::Light,
            Command::ThemeDark => app.settings.theme == Theme::Dark,
            Command::ThemeSystem => app.settings.theme == Theme::System,
            Command::SlowMotion => app.speed == SpeedChoice::Step.speed(),
            Command::Speed(choice) => app.speed == choice.speed(),
            _ => false,
        };
        let button = egui::Button::selectable(chosen, command.title()).shortcut_text(keys);
        let response = ui.add_enabled(enabled.is_ok(), button).on_hover_text(command.tooltip());
        let response = match enabled {
            Err(why) => response.on_disabled_hover_text(why),
            Ok(()) => response,
        };
        if response.clicked() {
            app.queue(Action::Command(command));
            ui.close();
        }
    }
}

/// Play, pause, step, stop: visible whichever panel is in front.
fn controls(app: &mut App, ui: &mut Ui, narrow: bool) {
    let play = match app.view.status {
        Status::Running => (Icon::Pause, "Pause"),
        Status::Paused => (Icon::Play, "Continue"),
        _ => (Icon::Play, "Start"),
    };
    let accent = Look { fill: Some(theme::palette(ui).accent), selected: false };
    let wide = ui.available_width() > 640.0;
    // After a run, the button starts a new one; the key that pauses does not.
    let command = if app.view.status.is_live() { Command::PlayPause } else { Command::Start };
    control(app, ui, command, play, Some(&["Pause", "Continue", "Start"]), accent);
    let room = |words: &'static [&'static str]| wide.then_some(words);
    control(app, ui, Command::OneBatch, (Icon::Step, "One batch"), room(&[]), Look::default());
    control(app, ui, Command::OneAttackStep, (Icon::AttackStep, "One attack step"), room(&[]), Look::default());
    speeds(app, ui, wide && !narrow);
    // In the same place, because only one of them is possible.
    const STOP: &[&str] = &["Resume", "Stop and save"];
    if app.enabled(Command::ResumeThis).is_ok() {
        control(app, ui, Command::ResumeThis, (Icon::Play, "Resume"), room(STOP), Look::default());
    } else {
        control(app, ui, Command::StopAndSave, (Icon::Stop, "Stop and save"), room(STOP), Look::default());
    }
    control(app, ui, Command::StopWithoutSaving, (Icon::Discard, "Stop without saving"), None, Look::default());
}

/// The speed of the run, and its choices.
fn speeds(app: &mut App, ui: &mut Ui, with_words: bool) {
    let now = SpeedChoice::ALL.into_iter().find(|choice| choice.speed() == app.speed).unwrap_or(SpeedChoice::Full);
    let look = Look { fill: None, selected: now != SpeedChoice::Full };
    let words = if with_words { now.title() } else { "Speed" };
    let titles = SpeedChoice::ALL.map(SpeedChoice::title);
    let button = icon_button(ui, Icon::Slow, words, with_words.then_some(&titles), look);
    let button = button.on_hover_text("How fast the run goes; `,` takes single attack steps");
    egui::Popup::menu(&button).show(|ui| {
        for choice in SpeedChoice::ALL {
            let command = Command::Speed(choice);
            if ui.selectable_label(choice == now, choice.title()).on_hover_text(command.tooltip()).clicked() {
                app.queue(Action::Command(command));
                ui.close();
            }
        }
        if ui.button("Single attack steps").on_hover_text(Command::OneAttackStep.tooltip()).clicked() {
            app.queue(Action::Command(Command::OneAttackStep));
            ui.close();
        }
    });
}

/// The button of a command; with words, in place of only its sign, if `room` is given: all words that may stand there.
fn control(
    app: &mut App,
    ui: &mut Ui,
    command: Command,
    (icon, words): (Icon, &str),
    room: Option<&[&str]>,
    look: Look,
) {
    let enabled = app.enabled(command);
    let keys = command.shortcut().map(|keys| format!(" ({})", ui.ctx().format_shortcut(&keys))).unwrap_or_default();
    let response = ui.add_enabled_ui(enabled.is_ok(), |ui| icon_button(ui, icon, words, room, look)).inner;
    let response = response.on_hover_text(format!("{}{keys}\n{}", command.title(), command.tooltip()));
    let response = match enabled {
        Err(why) => response.on_disabled_hover_text(why),
        Ok(()) => response,
    };
    if response.clicked() {
        app.queue(Action::Command(command));
    }
}

/// The current phase, its progress, and the device.
pub(super) fn bottom(app: &mut App, ui: &mut Ui) {
    egui::Panel::bottom("status").show(ui, |ui| {
        ui.horizontal(|ui| {
            let palette = theme::palette(ui);
            let (color, text) = match (app.view.status, &app.view.phase) {
                (Status::Empty, _) => (palette.weak, "no run".to_owned()),
                (Status::Looking, _) => (palette.accent, "looking at a checkpoint".to_owned()),
                (Status::Over, _) if app.view.failure.is_some() => (palette.error, "failed, see the log".to_owned()),
                (Status::Over, _) if app.view.report.is_some() => (palette.good, "done".to_owned()),
                (Status::Over, _) => (palette.weak, "stopped".to_owned()),
                (Status::Opening, Phase::Idle) => (palette.accent, "opening".to_owned()),
                (Status::Paused, phase) => (palette.warning, phase.describe()),
                (_, phase) => (palette.good, phase.short()),
            };
            let (dot, _) = ui.allocate_exact_size(egui::vec2(10.0, 10.0), egui::Sense::hover());
            ui.painter().circle_filled(dot.center(), 4.5, color);
            // Attack, update and evaluation alternate: what follows keeps its place.
            let room = if app.view.status.is_live() { 80.0 } else { 0.0 };
            let before = ui.cursor().left();
            ui.label(strong(text)).on_hover_text(app.view.phase.describe());
            ui.add_space((before + room - ui.cursor().left()).max(0.0));
            // While a run is being opened, the panels still show the one before.
            let trains = !matches!(app.view.status, Status::Looking | Status::Opening);
            let position = app.view.position().filter(|_| trains);
            if let (Some((position, epochs)), Some(epoch)) = (position, app.view.epoch_under_way()) {
                ui.label(format!("epoch {epoch}/{epochs}"));
                let width = (ui.available_width() * 0.25).clamp(40.0, 220.0);
                let bar = egui::ProgressBar::new((position / f64::from(epochs)) as f32)
                    .desired_width(width)
                    .desired_height(8.0);
                ui.add(bar).on_hover_text(format!("{position:.2} of {epochs} epochs"));
            }
            ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
                let engine = app.view.info.as_ref().map(|info| info.engine.clone());
                let times = &app.frame_times;
                let ms = |share| times.quantile(share).map_or(0.0, |time| 1e3 * time.as_secs_f64());
                let hover = format!("A frame takes {:.1} ms; one in a hundred over {:.1} ms.", ms(0.5), ms(0.99));
                let text = engine.unwrap_or_else(|| "no engine open".into());
                let run = app.view.title().filter(|_| app.view.status != Status::Opening);
                // Where only one of them has room, it is the run.
                let both = ui.available_width() > 320.0;
                if both || run.is_none() {
                    ui.add(egui::Label::new(weak(ui, text)).truncate()).on_hover_text(hover);
                }
                if let Some(run) = run {
                    if both {
                        ui.separator();
                    }
                    let place = app.view.directory().map_or_else(|| run.clone(), |path| path.display().to_string());
                    ui.add(egui::Label::new(run).truncate()).on_hover_text(place);
                }
                if app.view.status.is_live() && ui.available_width() > 160.0 {
                    // After the last epoch the test set is measured, which is no part of the estimate.
                    if let Some(eta) = app.view.eta_secs().filter(|left| *left > 0.0) {
                        ui.label(format!("{} left", clock(eta)));
                    }
                    if let Some(rate) = app.view.rate.per_second() {
                        ui.label(format!("{rate:.0} images/s"));
                    }
                }
            });
        });
    });
}

/// `h:mm:ss`, or `m:ss` below an hour.
pub(super) fn clock(secs: f64) -> String {
    let secs = secs.round().clamp(0.0, 1e9) as u64;
    let (hours, minutes, seconds) = (secs / 3600, secs / 60 % 60, secs % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}

/// Moves all panels to an earlier epoch, and back. It has its place from the beginning of a run, and works once there is an
/// earlier epoch.
pub(super) fn scrubber(app: &mut App, ui: &mut Ui) {
    let trains = app.view.info.is_some() && app.view.status != Status::Looking;
    if !trains && app.view.epochs.len() < 2 {
        return;
    }
    let number = |record: Option<&EpochRecord>| record.map_or(0, |record| record.metrics.epoch + 1);
    let ends = number(app.view.epochs.first())..=number(app.view.epochs.last());
    // A single epoch is the newest one: the knob stands at the right.
    let range = (*ends.start()).min(ends.end().saturating_sub(1))..=(*ends.end()).max(1);
    let mut number = number(app.focus.record(&app.view));
    let mut focus = app.focus;
    egui::Panel::bottom("scrubber").show(ui, |ui| {
        ui.add_enabled_ui(ends.start() < ends.end(), |ui| {
            ui.horizontal(|ui| {
                let label = ui.label("Epoch shown").on_hover_text("Moves all panels to an earlier epoch of this run");
                ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
                    let live = ui.selectable_label(focus.is_live(), "Live");
                    let live = live.on_hover_text("Follow the newest epoch");
                    if live.clicked() {
                        focus.epoch = None;
                    }
                    let shown = if number == 0 { "–".to_owned() } else { format!("{number} of {}", ends.end()) };
                    ui.add_sized([76.0, 18.0], egui::Label::new(shown));
                    ui.spacing_mut().slider_width = (ui.available_width() - 12.0).max(60.0);
                    let slider = egui::Slider::new(&mut number, range.clone()).show_value(false);
                    if ui.add(slider).labelled_by(label.id).changed() {
                        focus.epoch = Some(number - 1);
                    }
                });
            })
        });
    });
    app.focus = focus;
}
