from accelsim.workload.autograd import backward as backward
from accelsim.workload.autograd import training_step as training_step
from accelsim.workload.ops import LoopNest as LoopNest
from accelsim.workload.ops import Work as Work
