"""The figures of a report in plain words, for those who meet them for the first time."""

from __future__ import annotations

GLOSSARY: tuple[tuple[str, str], ...] = (
    ("Accuracy", "The share of images that were named rightly. With one very common class it is "
     "high even for a model that always names that class."),
    ("Balanced accuracy", "The mean of the classes' recalls: every class counts the same, however "
     "many images it has. Guessing gets one divided by the number of classes."),
    ("Precision", "Of the images called 'rose', the share that are roses."),
    ("Recall", "Of the roses, the share that are called 'rose'. Also called sensitivity."),
    ("Sensitivity, specificity", "Of the sick, the share that is found; of the healthy, the share "
     "that is left in peace. Moving the threshold raises one and lowers the other."),
    ("Predictive values, prevalence", "Of those called sick, the share that is (positive), and of "
     "those called healthy the share that is (negative). They hang on how common the disease is: "
     "where one in a hundred is sick, most alarms of a good test are false."),
    ("Operating threshold", "The probability from which the model says yes to the positive class. "
     "Chosen on the training images, never on those that it is judged on."),
    ("Specificity", "Of the images that are no roses, the share that are not called 'rose'."),
    ("F1", "The harmonic mean of precision and recall: high only if both are."),
    ("Macro, weighted", "Macro averages count every class the same, weighted ones by its images."),
    ("ROC and AUC", "Sort the images by how much the model thinks 'rose'. The AUC is the chance "
     "that a random rose stands before a random other image; 50 % is guessing."),
    ("Average precision", "The area under the curve of precision over recall. Stricter than the "
     "AUC where a class is rare."),
    ("Log loss", "Punishes confident mistakes: 0 is perfect, and always answering with equal "
     "probabilities costs the logarithm of the number of classes."),
    ("Brier score", "The squared distance of the probabilities from the truth: 0 is perfect."),
    ("MCC", "Matthews' correlation of answers and labels: 1 perfect, 0 no better than chance."),
    ("95 % interval", "The figure comes from a sample of images. Intervals made in this way hold "
     "the figure of all such images about 95 times in 100."),
    ("Cross-validation", "The training part is cut into folds. Each fold is predicted by a model "
     "that learnt from the other folds, so every image is judged by a model that never saw it."),
    ("Test part", "Images kept aside until everything was chosen, opened once."),
    ("Calibration", "Whether 90 % sure means right 9 times in 10. The expected calibration error "
     "is the mean distance between the two."),
    ("Conformal sets", "Instead of one class, a set of classes that holds the right one in, say, "
     "90 % of cases. Sure answers are small sets."),
    ("Out of distribution", "An image unlike everything the model learnt from. The false positive "
     "rate at 95 % is the share of strange images that pass when 95 % of ordinary ones must."),
    ("Shortcut", "Something beside the content (border, file size, a hospital's mark) that gives "
     "the label away."),
    ("Leakage", "Knowledge of the test images that slips into training and flatters the figures."),
)  # fmt: skip
