//! Scroll areas that follow the keyboard.

use egui::{ScrollArea, Ui};

/// Shows contents in a scroll area. If the focus moves to a widget in it that is out of view, as Tab does, it scrolls there.
pub fn scrolled(ui: &mut Ui, area: ScrollArea, contents: impl FnOnce(&mut Ui)) {
    area.show(ui, |ui| {
        contents(ui);
        let focused = ui.memory(|memory| memory.focused()).and_then(|id| ui.ctx().read_response(id));
        let inside = |response: &egui::Response| {
            response.layer_id == ui.layer_id() && ui.min_rect().contains(response.rect.center())
        };
        if let Some(response) = focused.filter(|response| response.gained_focus() && inside(response))
            && !ui.clip_rect().contains_rect(response.rect)
        {
            // With some of what stands around it.
            ui.scroll_to_rect(response.rect.expand2(egui::vec2(0.0, 24.0)), None);
        }
    });
}

#[cfg(test)]
mod tests {
    use egui::{Key, Modifiers};
    use egui_kittest::kittest::Queryable;

    use super::*;

    #[test]
    fn tab_leads_to_no_widget_out_of_view() {
        let ui = |ui: &mut Ui| {
            scrolled(ui, ScrollArea::vertical().auto_shrink(false), |ui| {
                for i in 0..30 {
                    let _ = ui.button(format!("Button {i}"));
                }
            });
        };
        let mut harness = egui_kittest::Harness::builder().with_size([200.0, 150.0]).build_ui(ui);
        harness.run_steps(2);
        let mut seen = 0;
        for (modifiers, presses) in [(Modifiers::NONE, 29), (Modifiers::SHIFT, 20)] {
            for _ in 0..presses {
                harness.key_press_modifiers(modifiers, Key::Tab);
                harness.run_steps(30);
                let Some(focused) = (0..30).find(|i| harness.get_by_label(&format!("Button {i}")).is_focused()) else {
                    continue;
                };
                let rect = harness.get_by_label(&format!("Button {focused}")).rect();
                assert!((0.0..=150.0).contains(&rect.top()) && rect.bottom() <= 150.0, "Button {focused}: {rect}");
                seen += 1;
            }
        }
        assert!(seen > 40, "{seen}");
    }
}
