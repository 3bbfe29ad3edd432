//! The images of a cell of a statistic.

use super::*;
use crate::train::CountedEpoch;

fn record(driver: &mut Driver) -> EpochRecord {
    driver.until("an epoch", |update| if let Update::Epoch(record) = update { Some((**record).clone()) } else { None })
}

/// The answers until the last one.
fn answers(driver: &mut Driver, id: u64) -> Vec<Arc<CellImages>> {
    let mut all = Vec::new();
    driver.until("all images", |update| match update {
        Update::Cell(found) if found.id == id => {
            all.push(found.clone());
            found.done.then_some(())
        }
        Update::Failed(failure) => panic!("{failure:?}"),
        _ => None,
    });
    all
}

fn job(id: u64, of: Counted, info: &RunInfo, record: &EpochRecord, images: Vec<u32>) -> CellJob {
    let epoch = CountedEpoch {
        epoch: record.metrics.epoch,
        radii: record.classes.iter().map(|row| row.epsilon).collect(),
        targets: record.classes.iter().map(|row| row.target_probability).collect(),
        before: None,
    };
    let (set, experiment) = (of.set(info).clone(), info.experiment.clone());
    CellJob { id, of, set, experiment, epoch, images, wanted: None, most: 100 }
}

fn predictions(images: &Examples) -> Vec<u32> {
    images.probabilities.chunks(10).map(crate::engine::loss::argmax).collect()
}

/// After an epoch, before the next batch, the network is that which was evaluated: the attack finds what was counted. And
/// the run goes on as if nobody had asked.
#[test]
fn images_are_attacked_as_they_were_counted_and_the_run_does_not_change() {
    let dir = tempfile::tempdir().unwrap();
    let [plain, watched] = ["plain", "watched"].map(|name| dir.path().join(name));
    let mut e = experiment();
    e.evaluation.recalibrate_bn = 0;
    let mut driver = Driver::new();
    driver.begin(e.clone(), &plain, false);
    driver.until_ended();
    drop(driver);

    let mut driver = Driver::new();
    driver.begin(e, &watched, true);
    let info = driver.opened();
    driver.until_paused();
    driver.send(Request::Examples(Some(ExamplesWish { count: 1000, every: Duration::ZERO })));
    for _ in 0..3 {
        driver.send(Request::OneBatch);
        driver.until_paused();
    }
    driver.send(Request::OneBatch);
    let record = record(&mut driver);
    driver.until_paused();
    let predicted = record.predicted.clone().unwrap();
    for (of, seen, counted) in [
        (Counted::Training, &predicted.train, record.train.as_ref().unwrap()),
        (Counted::Validation, &predicted.validation, record.validation.as_ref().unwrap()),
    ] {
        let labels = of.set(&info).labels();
        let mut again = crate::fairness::Confusion::new(10);
        let seen: Vec<u32> = seen.iter().map(|prediction| prediction.unwrap()).collect();
        again.add_all(labels, &seen);
        assert_eq!(again, *counted, "{of:?}");
        // All images, in portions.
        let images: Vec<u32> = (0..labels.len() as u32).collect();
        driver.send(Request::Cell(Some(Box::new(job(7, of, &info, &record, images.clone())))));
        let all = answers(&mut driver, 7);
        let last = &all[all.len() - 1].images;
        let count = last.ids.len();
        assert!(count >= 40 && last.ids[..] == images[..count] && last.labels[..] == labels[..count]);
        for (i, pixels) in last.clean.chunks(64).enumerate() {
            let moved = pixels.iter().zip(&last.adversarial[64 * i..]).map(|(a, b)| (a - b).abs());
            assert!(moved.fold(0.0, f32::max) <= last.epsilon[i] + 1e-6);
        }
        match of {
            Counted::Validation => assert_eq!(predictions(last), seen),
            // Targets are drawn as they were.
            Counted::Training => {
                let of = |images: &Examples, i: usize| (images.targets.as_ref().unwrap()[i], images.epsilon[i]);
                let trained: Vec<Arc<Examples>> = driver
                    .told
                    .iter()
                    .filter_map(|update| match update {
                        Update::Examples(examples) if examples.epoch == 0 => Some(Arc::clone(examples)),
                        _ => None,
                    })
                    .collect();
                let mut compared = 0;
                for examples in &trained {
                    for (i, id) in examples.ids.iter().enumerate() {
                        if let Some(place) = last.ids.iter().position(|other| other == id) {
                            assert_eq!(of(last, place), of(examples, i), "image {id}");
                            compared += 1;
                        }
                    }
                }
                assert!(compared >= 20, "{compared} images");
            }
        }
        // Only those of one prediction, the first two.
        let wanted = seen[0];
        let search = CellJob { wanted: Some(wanted), most: 2, ..job(8, of, &info, &record, images) };
        driver.send(Request::Cell(Some(Box::new(search))));
        let all = answers(&mut driver, 8);
        let found = &all[all.len() - 1].images;
        assert!(!found.ids.is_empty() && predictions(found).iter().all(|prediction| *prediction == wanted));
    }
    driver.send(Request::Continue);
    assert!(matches!(driver.until_ended(), Ended::Finished(_)));
    for name in ["classes.csv", "checkpoints/last.safetensors", "checkpoints/best.safetensors"] {
        let [a, b] = [&plain, &watched].map(|path| std::fs::read(path.join(name)).unwrap());
        assert!(a == b, "{name} differs");
    }
}

#[test]
fn a_cell_without_a_network_or_with_images_that_do_not_exist_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut driver = Driver::new();
    driver.begin(experiment(), &run_in(&dir), false);
    let info = driver.opened();
    let record = record(&mut driver);
    driver.until_ended();
    let wrong = job(1, Counted::Validation, &info, &record, vec![3, 1_000_000]);
    driver.send(Request::Cell(Some(Box::new(wrong.clone()))));
    let failure = driver.failure();
    assert!(failure.doing == COUNTING && failure.what.contains("there is no image 1000000"), "{failure:?}");
    drop(driver);
    let mut driver = Driver::new();
    driver.send(Request::Cell(Some(Box::new(wrong))));
    let failure = driver.failure();
    assert!(failure.doing == COUNTING && failure.what.contains("no network"), "{failure:?}");
}

/// Long work ends for another run, and with the window.
#[test]
fn a_long_search_keeps_nobody_waiting() {
    let dir = tempfile::tempdir().unwrap();
    let mut driver = Driver::new();
    driver.begin(experiment(), &run_in(&dir), false);
    let set = driver.opened().test;
    driver.until_ended();
    let seek = |images| SeekJob { id: 1, set: Arc::clone(&set), images, attack: None };
    let state = |driver: &mut Driver| {
        driver.until(
            "an answer",
            |update| if let Update::Sought(sought) = update { Some(sought.state.clone()) } else { None },
        )
    };
    let right = (0..set.len() as u32).find(|image| {
        driver.send(Request::Seek(Some(Box::new(seek(vec![*image])))));
        state(&mut driver) == SeekState::Exhausted
    });
    // Minutes of work.
    let long = seek(vec![right.unwrap(); 20_000_000]);
    for name in ["next", "last"] {
        driver.send(Request::Seek(Some(Box::new(long.clone()))));
        assert_eq!(state(&mut driver), SeekState::Trying);
        if name == "next" {
            driver.begin(experiment(), &dir.path().join(name), false);
            driver.opened();
            driver.until_ended();
        }
    }
    let clock = Instant::now();
    drop(driver);
    assert!(clock.elapsed() < Duration::from_secs(20), "{:?}", clock.elapsed());
}
