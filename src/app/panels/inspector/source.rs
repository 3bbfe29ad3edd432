//! The source of the image: the data set, a file, or the clipboard.

use std::sync::Arc;

use egui::{ComboBox, DragValue, Ui, vec2};

use super::choose_class;
use super::network;
use crate::app::context::{Action, Context, OpenFor};
use crate::app::level::Level;
use crate::app::pictures::{image_of, subject_from_set};
use crate::app::widgets::weak;
use crate::data::Dataset;
use crate::worker::{InspectionAttack, Request, RunInfo, SeekJob, SeekState, Sought, Subject};

/// A part of the data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Part {
    Train,
    Validation,
    #[default]
    Test,
}

impl Part {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Train => "training",
            Self::Validation => "validation",
            Self::Test => "test",
        }
    }

    pub(super) fn set(self, info: &RunInfo) -> &Arc<Dataset> {
        match self {
            Self::Train => &info.train,
            Self::Validation => &info.validation,
            Self::Test => &info.test,
        }
    }
}

/// The selected image of the data set, and how to get to the next.
#[derive(Debug, Default)]
pub(super) struct Source {
    pub(super) part: Part,
    pub(super) index: usize,
    pub(super) class: Option<u32>,
    /// The checkpoint of the epoch that the scrubber shows.
    checkpoint: network::Found,
    /// The search for a misclassified image under way.
    pub(super) seeking: Option<Seeking>,
    /// A search that the worker must be told to end.
    abandoned: bool,
    /// Number of searches so far, which identifies the newest.
    searches: u64,
}

/// A search for a misclassified image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seeking {
    pub(super) id: u64,
    under_attack: bool,
    /// Images tried, and images to try.
    tried: usize,
    images: usize,
}

impl Source {
    /// The selected image; the first one if the set has fewer images.
    pub(super) fn subject(&mut self, info: &RunInfo) -> Option<Subject> {
        let set = self.part.set(info);
        if self.index >= set.len() {
            self.index = 0;
        }
        subject_from_set(self.part.name(), set, self.index)
    }

    /// Moves to the next or previous image of the selected class, with wrap-around.
    pub(super) fn step(&mut self, info: &RunInfo, forward: bool) {
        let set = self.part.set(info);
        let n = set.len();
        for distance in 1..=n {
            let index = (self.index % n + if forward { distance } else { n - distance }) % n;
            if self.class.is_none_or(|class| set.labels()[index] == class) {
                self.index = index;
                return;
            }
        }
    }

    /// The images of the selected class that follow the selected one, with wrap-around; it comes last.
    fn following(&self, set: &Dataset) -> Vec<u32> {
        let n = set.len();
        let following = (1..=n).map(|distance| (self.index % n + distance) % n);
        let of_class = |image: &usize| self.class.is_none_or(|class| set.labels()[*image] == class);
        following.filter(of_class).map(|image| image as u32).collect()
    }

    /// Begins a search for the next misclassified image.
    fn seek(&mut self, info: &RunInfo, attack: Option<InspectionAttack>) -> SeekJob {
        let set = Arc::clone(self.part.set(info));
        let mut images = self.following(&set);
        // An attack towards a class has nothing to do with its own images.
        if let Some(target) = attack.as_ref().and_then(|attack| attack.target) {
            images.retain(|image| set.labels()[*image as usize] != target);
        }
        self.searches += 1;
        let (id, under_attack) = (self.searches, attack.is_some());
        self.seeking = Some(Seeking { id, under_attack, tried: 0, images: images.len() });
        SeekJob { id, set, images, attack }
    }

    /// Ends a search; the worker learns of it in the next frame.
    pub(super) fn abandon(&mut self) {
        self.abandoned |= self.seeking.take().is_some();
    }

    /// Selects the image, if it is one of the data set's.
    pub(super) fn select(&mut self, subject: &Subject) {
        self.abandon();
        let parts = [Part::Train, Part::Validation, Part::Test];
        if let Some((part, index)) = parts.into_iter().find_map(|part| Some((part, image_of(part.name(), subject)?))) {
            (self.part, self.index) = (part, index);
        }
    }

    /// Takes the newest answer of a search; returns whether another image was found.
    pub(super) fn take(&mut self, sought: &Sought, actions: &mut Vec<Action>) -> bool {
        let Some(seeking) = self.seeking.as_mut().filter(|seeking| seeking.id == sought.id) else { return false };
        seeking.tried = sought.tried;
        let attack = if seeking.under_attack { "under this attack" } else { "without an attack" };
        match &sought.state {
            SeekState::Trying => return false,
            SeekState::Found(image) => self.index = *image as usize,
            SeekState::Exhausted => {
                let images = match (seeking.images, self.part.name()) {
                    (1, part) => format!("The only {part} image"),
                    (n, part) => format!("Each of the {n} {part} images"),
                };
                let text = format!("{images} of this choice is classified right {attack}.");
                actions.push(Action::Toast(Level::Info, text));
            }
            SeekState::Failed(failure) => actions.push(Action::Toast(Level::Error, failure.to_string())),
        }
        self.seeking = None;
        matches!(sought.state, SeekState::Found(_))
    }

    /// The row that begins a search and shows how far it is.
    fn seek_row(&mut self, ui: &mut Ui, context: &mut Context<'_>, attack: &InspectionAttack) {
        let Some(info) = context.run.info.as_deref() else { return };
        let (mut wanted, mut stop) = (None, false);
        ui.horizontal_wrapped(|ui| {
            ui.label("Next misclassified:");
            if let Some(seeking) = &self.seeking {
                ui.add(egui::Spinner::new().size(14.0));
                ui.label(format!("{} of {} tried", seeking.tried, seeking.images));
                if ui.button("Stop").clicked() {
                    stop = true;
                }
                return;
            }
            let as_it_is =
                ui.button("as it is").on_hover_text("The next image that the network misclassifies unchanged.");
            let attacked = ui
                .button("under this attack")
                .on_hover_text("The next image that the network misclassifies after the attack that is set below.");
            if as_it_is.clicked() {
                wanted = Some(self.seek(info, None));
            } else if attacked.clicked() {
                wanted = Some(self.seek(info, Some(attack.clone())));
            }
        });
        if stop {
            self.abandon();
        }
        if let Some(job) = wanted {
            context.request(Request::Seek(Some(Box::new(job))));
        }
    }

    /// Draws the controls. Returns whether another image was chosen.
    pub(super) fn ui(
        &mut self,
        ui: &mut Ui,
        context: &mut Context<'_>,
        subject: Option<&mut Subject>,
        attack: &InspectionAttack,
    ) -> bool {
        let mut changed = false;
        let names = context.run.class_names();
        let info = context.run.info.as_deref();
        network::note(ui, context, &mut self.checkpoint);
        if let Some(info) = info {
            ui.horizontal_wrapped(|ui| {
                let before = self.part;
                let response = ComboBox::from_id_salt("part")
                    .width(96.0)
                    .selected_text(self.part.name())
                    .show_ui(ui, |ui| {
                        for part in [Part::Train, Part::Validation, Part::Test] {
                            ui.selectable_value(&mut self.part, part, part.name());
                        }
                    })
                    .response;
                let text = format!("Part of the data set: {}", self.part.name());
                response.widget_info(|| egui::WidgetInfo::labeled(egui::Role::ComboBox, true, &text));
                changed |= before != self.part;
                let class = self.class;
                choose_class(ui, "Class", &mut self.class, names, "any class", None);
                if self.class != class && self.class.is_some_and(|class| self.label(info) != Some(class)) {
                    self.step(info, true);
                    changed = true;
                }
            });
            ui.horizontal_wrapped(|ui| {
                if named(ui, Sign::Back, "Previous image").clicked() {
                    self.step(info, false);
                    changed = true;
                }
                let last = self.part.set(info).len() - 1;
                let label = ui.label("Image");
                changed |= ui.add(DragValue::new(&mut self.index).range(0..=last)).labelled_by(label.id).changed();
                if named(ui, Sign::Next, "Next image").clicked() {
                    self.step(info, true);
                    changed = true;
                }
            });
        }
        self.seek_row(ui, context, attack);
        // Any other choice ends a search.
        if changed {
            self.abandon();
        }
        if std::mem::take(&mut self.abandoned) {
            context.request(Request::Seek(None));
        }
        ui.horizontal_wrapped(|ui| {
            if ui.button("Open…").on_hover_text("Open a PNG or JPEG file.").clicked() {
                context.actions.push(Action::Open(OpenFor::Image));
            }
            if ui.button("Paste").on_hover_text("Use the image on the clipboard.").clicked() {
                context.actions.push(Action::PasteImage);
            }
            ui.label(weak(ui, "or drop an image onto the window"));
        });
        if let Some(subject) = subject {
            ui.horizontal_wrapped(|ui| {
                let from_set = subject.label.is_some() && subject.name.contains(" image ");
                ui.label(weak(ui, "Shown:"));
                match subject.label.filter(|_| from_set) {
                    Some(label) => {
                        let class = names.get(label as usize).cloned().unwrap_or_else(|| format!("class {label}"));
                        ui.label(format!("{}, {class}", subject.name));
                    }
                    None => {
                        ui.label(&subject.name);
                        choose_class(ui, "True class", &mut subject.label, names, "true class unknown", None)
                            .on_hover_text(
                                "If the true class is unknown, the attack leads away from the predicted class.",
                            );
                    }
                }
            });
        }
        changed
    }

    fn label(&self, info: &RunInfo) -> Option<u32> {
        self.part.set(info).labels().get(self.index).copied()
    }
}

/// The function of a small button.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sign {
    First,
    Back,
    Play,
    Pause,
    Next,
    Last,
}

/// A small button with a symbol, and a name for screen readers. Symbols are drawn because fonts lack some of them.
pub(super) fn named(ui: &mut Ui, sign: Sign, name: &str) -> egui::Response {
    let response = ui.add(egui::Button::new("").min_size(vec2(28.0, 24.0)));
    response.widget_info(|| egui::WidgetInfo::labeled(egui::Role::Button, true, name));
    let color = ui.style().interact(&response).text_color();
    let (c, painter) = (response.rect.center(), ui.painter());
    let triangle = |x: f32, direction: f32, size: f32| {
        let at = |along: f32, up: f32| c + vec2(x + direction * along * size, up * size);
        let points = vec![at(-0.7, -1.0), at(0.9, 0.0), at(-0.7, 1.0)];
        painter.add(egui::Shape::convex_polygon(points, color, egui::Stroke::NONE));
    };
    let bar = |x: f32, width: f32| {
        painter.rect_filled(egui::Rect::from_center_size(c + vec2(x, 0.0), vec2(width, 10.0)), 0, color);
    };
    match sign {
        Sign::First => {
            bar(-5.0, 2.0);
            triangle(1.5, -1.0, 5.0);
        }
        Sign::Back => triangle(0.0, -1.0, 5.0),
        Sign::Play => triangle(0.0, 1.0, 6.5),
        Sign::Pause => {
            bar(-3.0, 3.0);
            bar(3.0, 3.0);
        }
        Sign::Next => triangle(0.0, 1.0, 5.0),
        Sign::Last => {
            bar(5.0, 2.0);
            triangle(-1.5, 1.0, 5.0);
        }
    }
    response.on_hover_text(name)
}
