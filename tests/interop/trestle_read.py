"""Run by trestle's own Python: reads each OSCAL document of a folder into trestle's models, which refuse what is not valid.

Prints one line a document: its kind and its UUID.
"""

import sys
from pathlib import Path

from trestle.oscal.assessment_plan import AssessmentPlan
from trestle.oscal.assessment_results import AssessmentResults
from trestle.oscal.catalog import Catalog
from trestle.oscal.component import ComponentDefinition
from trestle.oscal.poam import PlanOfActionAndMilestones
from trestle.oscal.profile import Profile
from trestle.oscal.ssp import SystemSecurityPlan

MODELS = {
    "assessment-plan": AssessmentPlan,
    "assessment-results": AssessmentResults,
    "catalog": Catalog,
    "component-definition": ComponentDefinition,
    "plan-of-action-and-milestones": PlanOfActionAndMilestones,
    "profile": Profile,
    "system-security-plan": SystemSecurityPlan,
}
for path in sorted(Path(sys.argv[1]).glob("*.json")):
    document = MODELS[path.stem].oscal_read(path)
    print(path.stem, document.uuid)
