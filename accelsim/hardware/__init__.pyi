from accelsim.hardware.cost import price_table as price_table
from accelsim.hardware.schema import FpgaDevice as FpgaDevice
from accelsim.hardware.schema import GpuDevice as GpuDevice
from accelsim.hardware.schema import NeuromorphicDevice as NeuromorphicDevice
from accelsim.hardware.schema import SystolicDevice as SystolicDevice
