"""The pack for machines: NIST's OSCAL, written from the same judgements as the report.

Reading order: `document` (identifiers, metadata, how controls are called), `catalog` (what the identifiers mean), `definition`
(component definition), `plans` (skeletons of the system security plan and the assessment plan), `assessment` (assessment
results), `milestones` (plan of action). What one refers to stands in it or in another of the pack: results import the
assessment plan, which imports the security plan, which imports the profile.

Every UUID is made from what the document is about, so that the same facts give the same bytes. Source: OSCAL 1.1.3 models.
"""
