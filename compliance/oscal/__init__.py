"""The pack for machines: NIST's OSCAL, written from the same judgements as the report.

Reading order: `document` (identifiers, metadata, how controls are called), `definition` (component definition), `plans`
(skeletons of the system security plan and the assessment plan), `assessment` (assessment results), `milestones` (plan of
action).

Every UUID is made from what the document is about, so that the same facts give the same bytes. Source: OSCAL 1.1.3 models.
"""
