"""Limits of a report."""

from mia_lightning.report.contents import Report


def limits(report: Report) -> list[str]:
    """Return one or two sentences per limit, those of every report first."""
    non_members = next(iter(report.assessment.attacks.values())).n_non_members
    sentences = [
        "The intervals are about these records as a sample: other records of the same kind would give figures within "
        "them. They do not cover another training run of the model.",
        f"With {non_members:,} non-members, false-positive rates below 1 in {non_members:,} cannot be estimated.",
        "An attack that fails proves nothing: another may succeed. Only a lower bound follows from an attack.",
        "Members and non-members are assumed to come from the same distribution. The sanity checks look for "
        "differences that show without the model; they cannot find all. Mirrored images and a second JPEG "
        "compression at the same quality are known examples that they miss.",
        "p-values compare a record with the known non-members. They are not probabilities of membership; the share "
        "of members among the identified records depends on the share of members among all records.",
        "Intervals are for one figure each, at 95%. Differences between attacks are corrected for multiple comparisons "
        "(Holm), and the verdict for the number of attacks; comparisons across rates, classes or records are not.",
    ]
    if report.run is None:
        sentences.append(
            "This report was made from scores alone. The model, its accuracy, the images, the origin of the scores, "
            "the attacker's access, and whether an attack was fitted on the records it is evaluated on are not "
            "known from scores; those sections are omitted."
        )
        return sentences
    sentences.append(
        "Scores of the assessed records are out-of-fold: each comes from an attack that was not fitted on that "
        "record's membership. An attacker without known members cannot fit these attacks."
    )
    if report.run.references:
        sentences.append(
            f"{len(report.run.references)} reference models were trained on data from the same distribution. With "
            "other data or another training, an attacker would do worse; with more reference models, better."
        )
    else:
        sentences.append(
            "No reference models were used; they usually make attacks stronger, above all at low false-positive rates."
        )
    return sentences
