"""What a report does not say."""

from mia_lightning.report.contents import Report


def limits(report: Report) -> list[str]:
    """Return one sentence or two per limit, those that hold for any report first."""
    non_members = next(iter(report.assessment.attacks.values())).n_non_members
    said = [
        "The intervals are about these records as a sample: other records of the same kind would give figures within "
        "them. They do not cover another training run of the model.",
        f"With {non_members:,} non-members, no rate of false alarms below 1 in {non_members:,} can be told from none.",
        "An attack that fails proves nothing: another may succeed. Only a lower bound follows from an attack.",
        "Members and non-members are taken to be alike but for the training. The guards look for differences in what "
        "is known without the model; they cannot see all of them.",
        "p-values compare a record with the known non-members. They are no probabilities of membership; what share of "
        "the named records are members depends on how many members there are to begin with.",
        "Intervals are for one figure each, at 95%. Differences between attacks pay for their number (Holm); other "
        "comparisons across rates, classes or records do not.",
    ]
    if report.run is None:
        said.append(
            "This report was made from scores alone. It does not know the model, its accuracy, the images, how the "
            "scores came about, whether an attack was fitted on the records it is judged by, or who could do it; those "
            "sections are left out."
        )
        return said
    said.append(
        "Scores of the judged records are out-of-fold: each comes from an attack that was not fitted on that record's "
        "membership. Who attacks without knowing any members has to do without fitted attacks."
    )
    if report.run.references:
        said.append(
            f"{len(report.run.references)} reference models were trained on records of this very kind. Without such "
            "records, or with another recipe, an attacker would do worse; with more of them, better."
        )
    else:
        said.append("No reference models were used; they usually make attacks stronger, above all at few false alarms.")
    return said
