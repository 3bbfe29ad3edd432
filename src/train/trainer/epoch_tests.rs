//! How an epoch is split into batches, and which running statistics are evaluated.

use super::*;
use crate::config::{EngineChoice, LastBatch};
use crate::train::RunningAverage;

/// Counts the images of each batch.
#[derive(Default)]
struct Sizes(Vec<usize>);

impl Observer for Sizes {
    fn event(&mut self, event: &Event<'_>) {
        if let Event::Batch { images, .. } = event {
            self.0.push(*images);
        }
    }
}

/// 140 digits and a network of width 4: 120 images for training, 20 for validation.
fn experiment(change: impl Fn(&mut Experiment)) -> Experiment {
    let mut e = Experiment::preset("digits-60s").unwrap();
    e.data.limit = Some(140);
    e.data.test_limit = Some(20);
    e.data.validation_per_class = Some(2);
    e.model.width = Some(4);
    (e.attack.steps, e.optimizer.epochs, e.optimizer.batch_size) = (2, 2, 32);
    (e.averaging.average_from, e.averaging.fawa) = (0, false);
    (e.evaluation.eval_steps, e.evaluation.recalibrate_bn) = (2, 0);
    (e.run.engine, e.run.deterministic) = (EngineChoice::Candle, true);
    change(&mut e);
    e
}

fn begin(directory: &std::path::Path, e: &Experiment) -> Result<Trainer, TrainError> {
    Trainer::begin(e.clone(), Splits::load(e).unwrap(), RunDir::create(directory, e).unwrap())
}

#[test]
fn epochs_are_cut_as_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    for (i, (batch_size, last, expected)) in [
        (32, LastBatch::Even, &[30, 30, 30, 30][..]),
        (59, LastBatch::Even, &[40, 40, 40]),
        (49, LastBatch::Keep, &[49, 49, 22]),
        (49, LastBatch::Drop, &[49, 49]),
        (500, LastBatch::Even, &[120]),
    ]
    .into_iter()
    .enumerate()
    {
        let e = experiment(|e| (e.optimizer.batch_size, e.optimizer.last_batch) = (batch_size, last));
        let mut trainer = begin(&dir.path().join(i.to_string()), &e).unwrap();
        let mut sizes = Sizes::default();
        assert_eq!(trainer.run(&mut sizes).unwrap(), Outcome::Finished);
        assert_eq!(sizes.0, [expected, expected].concat());
        // The mean loss and the counts cover only the images that were trained on.
        let epochs = trainer.rows().0;
        assert!(epochs.iter().all(|row| row.train_loss.is_finite() && row.train_loss < 5.0), "{epochs:?}");
    }
}

#[test]
fn a_batch_that_batch_norm_cannot_train_on_is_refused_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    for (i, (batch_size, last, part)) in [
        (119, LastBatch::Keep, "the last batch of 120 images in batches of 119 holds one image"),
        (1, LastBatch::Even, "at least 2 images"),
        (121, LastBatch::Drop, "do not fill one batch of 121"),
    ]
    .into_iter()
    .enumerate()
    {
        let e = experiment(|e| (e.optimizer.batch_size, e.optimizer.last_batch) = (batch_size, last));
        let error = begin(&dir.path().join(i.to_string()), &e).err().unwrap();
        assert!(matches!(error, TrainError::Config(_)) && error.to_string().contains(part), "{error}");
    }
}

#[test]
fn recalibrated_statistics_are_plain_averages_and_training_does_not_see_them() {
    let dir = tempfile::tempdir().unwrap();
    let plain = experiment(|_| ());
    let recalibrating = experiment(|e| e.evaluation.recalibrate_bn = 3);
    let mut trainers = [(&plain, "plain"), (&recalibrating, "recalibrating")].map(|(e, name)| {
        let mut trainer = begin(&dir.path().join(name), e).unwrap();
        assert_eq!(trainer.run(&mut ()).unwrap(), Outcome::Finished);
        trainer
    });
    let trained = trainers[0].engine().state().unwrap();
    assert_eq!(trainers[1].engine().state().unwrap(), trained);
    let load = |name: &str, which: &str| State::load(&dir.path().join(name).join("checkpoints").join(which)).unwrap().0;
    assert_eq!(load("plain", "last.safetensors"), trained.model);

    // Each kind of weights by itself, over the first three batches of the last epoch.
    let ema = trainers[1].averages().0.unwrap().clone();
    assert_eq!(trainers[0].averages().0.unwrap().0.len(), ema.0.len());
    for (name, weights) in [("last.safetensors", trained.model.clone()), ("ema.safetensors", ema)] {
        let trainer = &mut trainers[1];
        let (order, cut, splits) = (trainer.order(1), trainer.cut(), trainer.splits().clone());
        trainer.engine().load_model(&weights).unwrap();
        let mut average = RunningAverage::default();
        let mut first = Vec::new();
        for index in 0..3 {
            let ids = &order[cut.range(index)];
            let (pixels, labels) = batch::gather(&splits.train, ids);
            let augment = recalibrating.augment();
            let batch = Batch { pixels: &pixels, labels: &labels, ids, augment, seed: 0, epoch: 1 };
            let found = trainer.engine().batch_statistics(&Input::Batch(&batch)).unwrap();
            average.add(&found);
            first.push(found);
        }
        let expected = average.put_into(&weights);
        let exported = load("recalibrating", name);
        assert_eq!(exported, expected, "{name}");
        assert_ne!(exported, weights, "{name}");
        for (array, found) in exported.0.iter().filter(|(array, _)| array.contains(".running_")) {
            for (i, value) in found.data.iter().enumerate() {
                let mean: f64 = first.iter().map(|state| f64::from(state.0[array].data[i])).sum::<f64>() / 3.0;
                assert!((f64::from(*value) - mean).abs() <= 1e-6 * mean.abs().max(1e-3), "{name} {array}");
            }
        }
    }
}
