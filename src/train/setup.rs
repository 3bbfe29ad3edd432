//! From the description of an experiment to images, network and engine.

use std::sync::Arc;

use super::engine_record::is_automatic;
use super::{EngineRecord, RunDir, TrainError};
use crate::config::Experiment;
use crate::data::{self, DataError, Dataset, TrainTest, channel_statistics};
use crate::engine::{Cancel, Engine, EngineError};
use crate::engines::open_engine_unless;
use crate::model::{Network, State};

/// The images of a run.
#[derive(Debug, Clone)]
pub struct Splits {
    /// The training images.
    pub train: Arc<Dataset>,
    /// The validation split, held out from the training images to select the best epoch.
    pub validation: Arc<Dataset>,
    /// The test images, used for evaluation only.
    pub test: Arc<Dataset>,
    /// [`TrainTest::notes`].
    pub notes: Vec<String>,
}

impl Splits {
    /// Loads, limits and splits the data set of an experiment.
    ///
    /// # Errors
    /// As [`data::load`] and [`data::split`].
    pub fn load(experiment: &Experiment) -> Result<Self, DataError> {
        Self::new(data::load(&experiment.source())?, experiment)
    }

    /// Limits and splits a loaded data set.
    ///
    /// # Errors
    /// When a limit leaves a class without images.
    pub fn new(TrainTest { train, test, notes }: TrainTest, experiment: &Experiment) -> Result<Self, DataError> {
        let train = limited(train, experiment.data.limit)?;
        let test = limited(test, experiment.data.test_limit)?;
        data::check_memory(train.name(), train.len() + test.len(), train.len(), train.shape())?;
        let (size, choice) = experiment.validation();
        let (training, validation) = data::split(&train, size, choice)?;
        let (validation, train) = (train.select(&validation)?, train.select(&training)?);
        Ok(Self { train: train.into(), validation: validation.into(), test: test.into(), notes })
    }
}

/// The first images of each class, `limit` in all, in equal shares; a remainder goes to the first classes. What a class
/// lacks for its share is taken from the others, again in equal shares. Classes without images take no part.
///
/// # Errors
/// When the limit leaves a class without images.
pub fn limited(set: Dataset, limit: Option<usize>) -> Result<Dataset, DataError> {
    let Some(limit) = limit.filter(|limit| *limit < set.len()) else { return Ok(set) };
    let counts = set.class_counts();
    let classes = counts.iter().filter(|count| **count > 0).count();
    if limit < classes {
        let what = format!("a limit of {limit} images leaves some of the {classes} classes without images");
        return Err(DataError::Inconsistent { name: set.name().to_owned(), what });
    }
    let mut room = shares(&counts, limit);
    let fits = |label: u32| {
        let room = &mut room[label as usize];
        let fits = *room > 0;
        *room -= usize::from(fits);
        fits
    };
    let mut fits = fits;
    let kept: Vec<usize> = set.labels().iter().enumerate().filter(|(_, l)| fits(**l)).map(|(i, _)| i).collect();
    set.select(&kept)
}

/// `limit` images in equal shares of at most `counts`, of which there must be enough.
fn shares(counts: &[usize], limit: usize) -> Vec<usize> {
    let within = |share: usize| counts.iter().map(|count| share.min(*count)).sum::<usize>();
    // The largest share that every class can have, if it has so many images.
    let mut share = limit / counts.len().max(1);
    while share < limit && within(share + 1) <= limit {
        share += 1;
    }
    let mut left = limit.saturating_sub(within(share));
    let of = |count: &usize| {
        let more = usize::from(left > 0 && *count > share);
        left -= more;
        share.min(*count) + more
    };
    counts.iter().map(of).collect()
}

/// Mean and standard deviation of each channel for the input normalisation in the network's first layer: for CIFAR
/// those of the authors' final script, else those of the training images.
pub fn normalisation(experiment: &Experiment, train: &Dataset) -> Option<(Vec<f32>, Vec<f32>)> {
    let colour = train.shape().channels == 3;
    match experiment.data.dataset.as_str() {
        _ if !experiment.data.normalize => None,
        "cifar10" if colour => {
            Some((vec![0.491_399_7, 0.482_158_4, 0.446_530_9], vec![0.247_032_2, 0.243_484_9, 0.261_587_8]))
        }
        "cifar100" if colour => Some((vec![0.5071, 0.4867, 0.4408], vec![0.2675, 0.2565, 0.2761])),
        _ => Some(channel_statistics(train)),
    }
}

/// The network of an experiment for these training images.
pub fn network(experiment: &Experiment, train: &Dataset) -> Network {
    let normalisation = normalisation(experiment, train);
    let normalisation = normalisation.as_ref().map(|(mean, std)| (mean.as_slice(), std.as_slice()));
    experiment.model.arch.build(train.shape(), train.classes(), normalisation, experiment.model.width)
}

/// Opens the engine for a resumed run: the engine that it began with if `experiment` chooses automatically and that engine
/// is recorded, else, or for `any_engine`, the engine that is asked for. Also returns which records cannot be read, and what
/// is used in their place.
///
/// # Errors
/// [`TrainError::EngineGone`] if the engine that the run began with is not available; otherwise as
/// [`open_engine_unless`].
pub(super) fn reopen_engine(
    experiment: &Experiment,
    network: Network,
    state: &State,
    directory: &RunDir,
    any_engine: bool,
    stop: Cancel<'_>,
) -> Result<(Box<dyn Engine>, Vec<String>), TrainError> {
    let asked_for = experiment.run.engine_options();
    let recorded = directory.engine();
    let began = recorded.as_ref().ok().and_then(Option::as_ref).filter(|_| !any_engine);
    let options = began.map_or_else(|| asked_for.clone(), |began| began.put_over(&asked_for));
    let kernels = directory.kernels();
    let known = kernels.as_ref().ok().cloned().flatten();
    let opened = open_engine_unless(&options, network, state, known, stop);
    let engine = opened.map_err(|source| match (began, &source) {
        (Some(began), EngineError::Gpu(_) | EngineError::Unavailable(_) | EngineError::Candle(_))
            if options != asked_for =>
        {
            let (path, began) = (directory.path().to_path_buf(), began.description.clone());
            TrainError::EngineGone { path, began, source: Box::new(source) }
        }
        _ => source.into(),
    })?;
    let mut problems = Vec::new();
    let now = engine.describe();
    match &recorded {
        Err(error) => problems.push(format!(
            "{error}: the engine that the run began with is not known, so it goes on with {now}; results of another engine \
             differ by rounding"
        )),
        Ok(Some(began)) if !any_engine && is_automatic(&asked_for) && !began.is_known() => problems.push(format!(
            "the run began with the engine '{}', which this version of fairtat does not have; it goes on with {now}, and \
             results differ by rounding",
            began.name
        )),
        Ok(_) => {}
    }
    if let (Err(error), true) = (&kernels, engine.kernels().is_some()) {
        problems.push(format!(
            "{error}: the kernels of the convolutions are chosen again, and with other ones results differ by rounding"
        ));
    }
    // Nothing that can be read: record the engine from now on.
    if !matches!(recorded, Ok(Some(_))) && is_automatic(&asked_for) {
        directory.write_engine(&EngineRecord::of(engine.as_ref()))?;
    }
    Ok((engine, problems))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{DeviceChoice, EngineChoice, EngineOptions};
    use crate::data::ImageShape;
    use crate::engine::candle::CandleDevice;
    use crate::engine::wgsl::AdapterKind;
    use crate::engines::{ChosenEngine, decide};
    use crate::train::{Event, Observer, ResumeOptions, Trainer};

    /// The choice of `auto` may change between the beginning of a run and its resume.
    #[test]
    fn a_run_goes_on_with_the_engine_that_it_began_with() {
        let auto = EngineOptions::default();
        let cpu = &[CandleDevice::Cpu][..];
        let cuda = &[CandleDevice::Cpu, CandleDevice::Cuda(0)][..];
        let began = |name: &str, adapter: Option<&str>| EngineRecord {
            name: name.into(),
            adapter: adapter.map(Into::into),
            description: String::new(),
        };
        for (record, candle, adapter, expected) in [
            (began("candle-cpu", None), cuda, Some(AdapterKind::Discrete), ChosenEngine::Candle(CandleDevice::Cpu)),
            (began("candle-cuda", None), cpu, None, ChosenEngine::Candle(CandleDevice::Cuda(0))),
            (began("wgsl", Some("Radeon")), cuda, Some(AdapterKind::Discrete), ChosenEngine::Wgsl),
            (began("wgsl", Some("Radeon")), cpu, None, ChosenEngine::Wgsl),
        ] {
            assert_ne!(decide(&auto, candle, || adapter), expected, "auto alone would continue with {record:?}");
            assert_eq!(decide(&record.put_over(&auto), candle, || adapter), expected, "{record:?}");
        }
    }

    /// An experiment of one short epoch on the CPU.
    fn small() -> Experiment {
        let mut experiment = Experiment::preset("digits-60s").unwrap();
        (experiment.data.limit, experiment.data.validation_per_class) = (Some(60), Some(2));
        (experiment.model.width, experiment.attack.steps, experiment.evaluation.eval_steps) = (Some(4), 1, 1);
        (experiment.optimizer.epochs, experiment.run.engine) = (1, EngineChoice::Candle);
        experiment
    }

    #[test]
    fn an_engine_that_is_gone_is_named_and_never_replaced_silently() {
        let dir = tempfile::tempdir().unwrap();
        let mut experiment = small();
        let path = dir.path().join("run");
        let splits = Splits::load(&experiment).unwrap();
        let run = RunDir::create(&path, &experiment).unwrap();
        let mut trainer = Trainer::begin(experiment.clone(), splits.clone(), run.clone()).unwrap();
        trainer.run(&mut ()).unwrap();
        let began = run.engine().unwrap().unwrap();
        assert_eq!(began, EngineRecord::of(trainer.engine()));
        assert!(began.name.starts_with("candle-"));

        experiment.run.engine = EngineChoice::Auto;
        let gone = EngineRecord {
            name: "wgsl".into(),
            adapter: Some("A GPU that was sold".into()),
            description: "wgsl (A GPU that was sold, Vulkan)".into(),
        };
        run.write_engine(&gone).unwrap();
        let resume = |experiment: &Experiment| Trainer::resume(experiment.clone(), splits.clone(), run.clone());
        let error = resume(&experiment).err().unwrap().to_string();
        let expected = format!(
            "the run began with wgsl (A GPU that was sold, Vulkan), which cannot be opened now; `fairtat resume {} --engine \
             candle` continues with another engine",
            path.display()
        );
        assert_eq!(error, expected);
        // A named engine is opened; the record keeps the engine that the run began with.
        let on_candle = |experiment: &Experiment| {
            let mut chosen = experiment.clone();
            (chosen.run.engine, chosen.run.device) = (EngineChoice::Candle, DeviceChoice::Cpu);
            chosen
        };
        assert_eq!(resume(&on_candle(&experiment)).unwrap().engine().name(), "candle-cpu");
        assert_eq!(run.engine().unwrap(), Some(gone));
        // A directory of an earlier version has no record: the current choice is recorded.
        std::fs::remove_file(path.join("engine.json")).unwrap();
        assert_eq!(resume(&on_candle(&experiment)).unwrap().engine().name(), "candle-cpu");
        assert_eq!(run.engine().unwrap(), None, "an engine chosen by hand does not show what the run began with");
        let now = resume(&experiment).unwrap().engine().name();
        assert_eq!(run.engine().unwrap().unwrap().name, now);
    }

    /// Everything that a run says.
    #[derive(Default)]
    struct Told(Vec<String>);

    impl Observer for Told {
        fn event(&mut self, event: &Event<'_>) {
            if let Event::Warning(text) = event {
                self.0.push((*text).to_owned());
            }
        }
    }

    #[test]
    fn a_record_of_the_engine_that_cannot_be_read_is_named_with_the_engine_in_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let mut experiment = small();
        let path = dir.path().join("run");
        let splits = Splits::load(&experiment).unwrap();
        let run = RunDir::create(&path, &experiment).unwrap();
        Trainer::begin(experiment.clone(), splits.clone(), run.clone()).unwrap().run(&mut ()).unwrap();
        experiment.run.engine = EngineChoice::Auto;
        let resume = |experiment: &Experiment, any_engine| {
            let options = ResumeOptions { any_engine, ..ResumeOptions::default() };
            let mut trainer = Trainer::resume_with(experiment.clone(), splits.clone(), run.clone(), options).unwrap();
            let mut told = Told::default();
            trainer.run(&mut told).unwrap();
            (trainer.engine().describe(), told.0)
        };
        let about_engines =
            |told: &[String]| told.iter().filter(|text| text.contains("engine")).cloned().collect::<Vec<_>>();
        let file = path.join("engine.json");
        for damaged in [&b""[..], b"{\"name\": \"candle-cpu\"", b"[]", b"\xff"] {
            std::fs::write(&file, damaged).unwrap();
            let (engine, told) = resume(&experiment, false);
            let told = about_engines(&told);
            assert_eq!(told.len(), 1, "{told:?}");
            assert!(told[0].starts_with(&format!("{}: ", file.display())), "{told:?}");
            let then =
                format!("is not known, so it goes on with {engine}; results of another engine differ by rounding");
            assert!(told[0].ends_with(&then), "{told:?}");
            // Recorded anew, so that the next resume has nothing to say.
            assert!(about_engines(&resume(&experiment, false).1).is_empty());
        }
        let unknown = EngineRecord { name: "abacus".into(), adapter: None, description: "abacus (wood)".into() };
        run.write_engine(&unknown).unwrap();
        let (engine, told) = resume(&experiment, false);
        let told = about_engines(&told);
        assert!(told[0].starts_with("the run began with the engine 'abacus', which this version"), "{told:?}");
        assert!(told[0].contains(&format!("goes on with {engine}")), "{told:?}");
        // Another engine was asked for.
        assert!(about_engines(&resume(&experiment, true).1).is_empty());
    }

    #[test]
    fn limits_keep_classes_in_balance_and_order() {
        let names = (0..3).map(|k| k.to_string()).collect();
        let labels = vec![0, 0, 0, 1, 1, 1, 2, 2, 2];
        let set = Dataset::new("t", names, ImageShape::new(1, 1, 1), (0..9).collect(), labels).unwrap();
        let kept = limited(set.clone(), Some(5)).unwrap();
        assert_eq!((kept.labels(), kept.images()), (&[0, 0, 1, 1, 2][..], &[0, 1, 3, 4, 6][..]));
        assert_eq!(limited(set.clone(), Some(9)).unwrap(), set);
        assert!(limited(set, Some(2)).unwrap_err().to_string().contains("limit of 2"));
    }

    #[test]
    fn a_limit_is_kept_in_unbalanced_sets() {
        for (counts, limit, expected) in [
            (vec![160, 4], 100, vec![96, 4]),
            (vec![4, 160], 100, vec![4, 96]),
            (vec![10, 1, 0, 10], 12, vec![6, 1, 0, 5]),
            (vec![3, 3, 3], 5, vec![2, 2, 1]),
            (vec![5, 0, 0], 2, vec![2, 0, 0]),
        ] {
            let names = (0..counts.len()).map(|k| k.to_string()).collect();
            let labels: Vec<u32> = (0u32..).zip(&counts).flat_map(|(k, n)| vec![k; *n]).collect();
            let images = vec![0; labels.len()];
            let set = Dataset::new("t", names, ImageShape::new(1, 1, 1), images, labels).unwrap();
            assert_eq!(limited(set, Some(limit)).unwrap().class_counts(), expected, "{counts:?}, {limit}");
        }
    }
}
