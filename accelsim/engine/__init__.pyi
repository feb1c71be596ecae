from accelsim.architectures.base import KernelCost as KernelCost
from accelsim.architectures.neuromorphic.spiking import spike_rates as spike_rates
from accelsim.calibration.fit import Calibration as Calibration
from accelsim.engine.confidential import confidential_query as confidential_query
from accelsim.engine.timeline import Segment as Segment
from accelsim.engine.training import local_step as local_step
from accelsim.engine.training import training_bill as training_bill
